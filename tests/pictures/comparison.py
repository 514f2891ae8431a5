"""Compare the check of a picture with what the decoders do."""

import io
from collections.abc import Callable
from typing import Any, TypeVar

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from schemas.image import ImageError, ImageFacts, inspect_image, normal_form
from schemas.pixels import decode_photo

T = TypeVar("T")

Graph = Callable[[bytes], Any]
"""Decodes as the exported graph does: uint8 `[h, w, 3]`, upright. Raises ValueError if it cannot."""

_UNSETTLED = (
    "cannot be a quarter of its pixels",  # viewers show a grey area
    "no valid Huffman table",  # libjpeg-turbo 3 leaves out the component, 2 ends with an error
    "invalid window size",  # libpng or its zlib may notice it
    # libpng may or may not notice these, by how the data are split.
    "incorrect data check",
    "behind the last row",
    "distance too far back",
    "(no end)",
)
_CMYK_CHANNELS = 4
_ORIENTATION, _TRANSPOSED = 0x0112, range(5, 9)
_BUDGETS = {"too-large", "too-many-pixels", "unsupported-image"}


def compare(image: bytes, graph: Graph | None = None) -> str:
    """Return `accepted`, `damaged`, `refused` or `budget`, if every decoder agrees.

    Raises:
        AssertionError: A picture is accepted that a decoder does not read, or decoders read it differently,
            or one is refused that viewers open.
    """
    facts = _tried(inspect_image, image)
    if isinstance(facts, ImageError):
        is_budget = facts.code in _BUDGETS or _is_unsettled(facts)
        assert is_budget or not viewers_open(image, graph), f"viewers open it: {facts}"
        return "budget" if is_budget else "refused"
    plain = image if facts.exact else normal_form(image)
    _check_normal_form(plain, facts)
    decoded = _tried(decode_photo, image)
    if isinstance(decoded, ImageError):
        # Only the pixels of a PNG, which the check does not inflate, can be broken still.
        assert facts.format == "png", f"not decoded: {decoded}"
        assert _is_unsettled(decoded) or not viewers_open(plain, graph), f"viewers open it: {decoded}"
        return "refused"
    assert decoded.picture.size == (facts.width, facts.height)
    again = decode_photo(plain)
    assert again.picture.tobytes() == decoded.picture.tobytes(), "the normal form has other pixels"
    # Without animation and malformed EXIF data, of which OpenCV makes something of its own.
    _check_opencv(normal_form(image), facts, decoded.picture, damaged=decoded.damaged is not None)
    if facts.exact and not is_animation(image):
        seen = opencv(image)
        assert seen is not None, "OpenCV does not read what is exact"
        # A square picture could be turned unnoticed; those of the tests are none.
        assert seen.shape[:2] == (facts.height, facts.width), "OpenCV turns what is exact otherwise"
        assert _turned_by_pillow(image) == (facts.width, facts.height), "Pillow turns what is exact otherwise"
    if graph is not None:
        _check_graph(graph, image, plain, facts, decoded.picture, damaged=decoded.damaged is not None)
    return "accepted" if decoded.damaged is None else "damaged"


def _is_unsettled(error: ImageError) -> bool:
    """Return True if viewers differ about a picture that is refused."""
    return any(words in str(error) for words in _UNSETTLED)


def _tried(read: Callable[[bytes], T], image: bytes) -> T | ImageError:
    try:
        return read(image)
    except ImageError as error:
        return error


def _check_normal_form(plain: bytes, facts: ImageFacts) -> None:
    again = inspect_image(plain)
    assert again.exact, "the normal form has no normal form"
    same = ("format", "stored_width", "stored_height", "orientation", "bit_depth", "channels")
    for name in same:
        assert getattr(again, name) == getattr(facts, name), f"the normal form has another {name}"


def _check_opencv(plain: bytes, facts: ImageFacts, picture: Image.Image, *, damaged: bool) -> None:
    """Compare with OpenCV, which has its own libpng and libjpeg-turbo."""
    pixels = opencv(plain)
    assert pixels is not None, "OpenCV reads nothing"
    assert pixels.shape[:2] == (facts.height, facts.width), f"OpenCV has shape {pixels.shape}"
    if damaged or facts.has_alpha or facts.channels == _CMYK_CHANNELS:
        return  # it leaves out alpha, and has its own CMYK
    difference = int(np.abs(pixels[..., ::-1].astype(int) - np.asarray(picture).astype(int)).max())
    assert difference <= 1, f"OpenCV differs by {difference}"


def is_animation(image: bytes) -> bool:
    """Return True for a PNG whose chunks OpenCV reads itself instead of libpng, wrong checksums included."""
    return b"acTL" in image


def opencv(image: bytes) -> Any | None:
    """Decode as OpenCV does: uint8 `[h, w, 3]`, blue first, upright; None if it cannot."""
    return cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)


def _turned_by_pillow(image: bytes) -> tuple[int, int]:
    """Return width and height as Pillow would show a picture."""
    try:
        with Image.open(io.BytesIO(image)) as picture:
            orientation = picture.getexif().get(_ORIENTATION, 1)
            return picture.size if orientation not in _TRANSPOSED else (picture.height, picture.width)
    except Exception as error:  # errors of all kinds
        raise AssertionError(f"Pillow does not read what is exact: {error!r}") from error


def _check_graph(
    graph: Graph, image: bytes, plain: bytes, facts: ImageFacts, picture: Image.Image, *, damaged: bool
) -> None:
    pixels = graph(plain)
    assert pixels.shape == (facts.height, facts.width, 3), f"the graph has shape {pixels.shape}"
    # What fills the place of lost data differs between versions of libjpeg.
    difference = int(np.abs(pixels.astype(int) - np.asarray(picture).astype(int)).max())
    assert damaged or difference <= 1, f"the graph differs by {difference}"
    if _reads(graph, image):
        # Called directly, with the bytes that were checked: no other size, so no other cost.
        stored = {graph(image).shape[:2], graph(image).shape[1::-1]}
        assert (facts.height, facts.width) in stored, "the graph reads another size than was checked"


def _reads(graph: Graph, image: bytes) -> bool:
    try:
        graph(image)
    except ValueError:
        return False
    return True


def viewers_open(image: bytes, graph: Graph | None) -> bool:
    """Return True if libjpeg-turbo or a libpng read the picture, perhaps with warnings."""
    # Pillow's own reader of PNG takes much that libpng refuses, such as a second header.
    if not image.startswith(b"\xff\xd8"):
        opens = not is_animation(image) and opencv(image) is not None
        return opens or (graph is not None and _reads(graph, image))
    try:
        simplejpeg.decode_jpeg(image, "GRAY", strict=False)
    except ValueError:
        return False
    return True
