"""Convert networks for LiteRT (formerly TensorFlow Lite), and run a variant as the model server does."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from bus.log import native_stderr_hidden
from schemas.errors import PermanentError
from schemas.litert import EXTRA_ASSETS, PIXELS_TENSOR, PixelFormat, Variant
from schemas.litert.chain import Chain
from schemas.litert.network_input import network_input


class NotConvertibleError(PermanentError):
    """A network has operations that LiteRT does not have."""


Answer = Callable[[tf.Tensor], dict[str, tf.Tensor]]


def convert_network(
    module: tf.Module, answer: Answer, shape: Sequence[int], input_name: str = PIXELS_TENSOR
) -> bytes:
    """Convert a network with its float32 weights, for calls with one photo.

    Args:
        module: holds its variables.
        answer: from the input `[1, …]` to outputs by name.
        shape: of the input, without the batch.
        input_name: name of the input.

    Returns:
        The content of a `.tflite` file.

    Raises:
        NotConvertibleError: LiteRT does not have an operation of the network.
    """
    try:
        return _convert(_converter(module, answer, shape, input_name))
    except Exception as error:  # the converter's own error has no public name
        reason = str(error).strip().splitlines()[0][:300]
        raise NotConvertibleError(f"cannot convert the network for LiteRT: {reason}") from error


def quantize_network(
    module: tf.Module, answer: Answer, shape: Sequence[int], images: Sequence[NDArray[np.float32]]
) -> bytes:
    """Convert a network to 8-bit integers, with weights per channel; input and outputs stay float32.

    Args:
        module: holds its variables.
        answer: from normalised pixels `[1, H, W, 3]` to outputs by name.
        shape: `(H, W, 3)`.
        images: inputs `[1, H, W, 3]` that the ranges of the activations are measured on.

    Raises:
        RuntimeError, ValueError: an operation has no form in 8-bit integers.
    """
    converter = _converter(module, answer, shape, PIXELS_TENSOR)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image] for image in images)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return _convert(converter)


def _converter(module: tf.Module, answer: Answer, shape: Sequence[int], input_name: str) -> Any:
    # A batch of one: larger ones are not faster in LiteRT, and the model server gives each photo to a thread.
    one = tf.TensorSpec([1, *shape], tf.float32, name=input_name)
    traced = tf.function(answer, input_signature=[one], autograph=False).get_concrete_function()
    return tf.lite.TFLiteConverter.from_concrete_functions([traced], module)


def _convert(converter: Any) -> bytes:
    with native_stderr_hidden():
        return bytes(converter.convert())


def run_networks(
    chain: Sequence[bytes], images: NDArray[np.float32] | Sequence[NDArray[np.float32]]
) -> dict[str, NDArray[np.float32]]:
    """Run a chain of converted networks, each on the earlier outputs that it takes.

    Args:
        chain: contents of `.tflite` files.
        images: normalised pixels `[N, H, W, 3]`, or N times `[H, W, 3]`; at least one.

    Returns:
        Outputs by name, each `[N, …]`.

    Raises:
        RuntimeError, ValueError: LiteRT cannot load or run one of them.
    """
    with native_stderr_hidden():
        networks = Chain(chain)
        parts = [networks.run(image[np.newaxis]) for image in images]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class VariantModel:
    """A LiteRT variant of an exported version, decoding included, as the model server runs it.

    Args:
        directory: of the version.
        variant: which of its variants.
        form: how photos become its input.
    """

    def __init__(self, directory: Path, variant: Variant, form: PixelFormat) -> None:
        self._chain = [(directory / EXTRA_ASSETS / name).read_bytes() for name in variant.files]
        self._form = form

    def predict(self, photos: Sequence[bytes]) -> dict[str, NDArray[np.float32]]:
        """Run encoded photos, at least one.

        Returns:
            `probabilities` `[N, K]`, `embedding` `[N, D]` and `novelty` `[N]`.

        Raises:
            PermanentError: a photo cannot be decoded.
            RuntimeError, ValueError: LiteRT cannot run it.
        """
        images = (network_input(photo, self._form)[0] for photo in photos)
        return run_networks(self._chain, list(images))
