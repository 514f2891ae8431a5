"""Refuse images that would cost too much to decode, before a version decodes them."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from edge.modelserver.models.servable import Servable
from edge.modelserver.requests.predict import Runner
from edge.modelserver.status import Code, ServingError
from edge.modelserver.tensors import Array
from schemas.image import ImageError, ImageLimits, inspect_image, normal_form
from schemas.image.signatures import JPEG_SIGNATURE, PNG_SIGNATURE

_SIGNATURES = (JPEG_SIGNATURE, PNG_SIGNATURE)
_EMBEDDED = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n")
_MAX_EMBEDDED = 16


def within_budget(runner: Runner, limits: ImageLimits) -> Runner:
    """Return a runner that refuses feeds with a JPEG or PNG that is not acceptable.

    So a call takes no time or memory from others: the error is INVALID_ARGUMENT, as for an image that
    cannot be decoded. An image that decoders read differently is fed in its normal form, so that all runtimes
    give one answer. Images inside other strings (tf.Example) are checked for the budgets only.
    """

    def run(
        servable: Servable, feeds: Mapping[str, Array], fetches: Sequence[str], timeout_s: float | None
    ) -> list[Array]:
        checked = {name: _checked(array, limits) for name, array in feeds.items()}
        return runner(servable, checked, fetches, timeout_s)

    return run


def _checked(array: Array, limits: ImageLimits) -> Array:
    if array.dtype != object:
        return array
    before = array.reshape(-1).tolist()
    after = [_check(value, limits) if isinstance(value, bytes) else value for value in before]
    if all(one is other for one, other in zip(before, after, strict=True)):
        return array
    changed = np.empty(len(after), object)
    changed[:] = after
    return changed.reshape(array.shape)


def _check(value: bytes, limits: ImageLimits) -> bytes:
    try:
        if value.startswith(_SIGNATURES):
            return value if inspect_image(value, limits).exact else normal_form(value, limits)
        _check_embedded(value, limits)
    except ImageError as error:
        raise ServingError(Code.INVALID_ARGUMENT, str(error)) from None
    return value


def _check_embedded(value: bytes, limits: ImageLimits) -> None:
    for count, found in enumerate(_EMBEDDED.finditer(value)):
        if count == _MAX_EMBEDDED:
            raise ServingError(
                Code.INVALID_ARGUMENT,
                f"a string has more than {_MAX_EMBEDDED} images; send them as a batch",
            )
        try:
            inspect_image(value[found.start() :], limits)
        except ImageError as error:
            if error.code != "corrupt-image":  # any bytes can look like the start of an image
                raise
