"""A network converted for LiteRT, the runtime that was TensorFlow Lite, and its answers."""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

PIXELS = "pixels"


def converted(
    module: tf.Module, answer: Callable[[tf.Tensor], dict[str, tf.Tensor]], shape: Sequence[int]
) -> bytes:
    """Convert a network, in the float32 that it has.

    It takes one photo at a time: LiteRT is no faster on several, and each thread of a server has one.

    Args:
        module: holds its variables.
        answer: from normalised pixels `[1, H, W, 3]` to answers by name.
        shape: `(H, W, 3)`.
    """
    one = tf.TensorSpec([1, *shape], tf.float32, name=PIXELS)
    traced = tf.function(answer, input_signature=[one]).get_concrete_function()
    return bytes(tf.lite.TFLiteConverter.from_concrete_functions([traced], module).convert())


def ask(network: bytes, images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Run a converted network.

    Args:
        network: what `converted` returned.
        images: normalised pixels `[N, H, W, 3]`.

    Raises:
        RuntimeError, ValueError: LiteRT cannot run it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that LiteRT will leave TensorFlow's package
        interpreter = tf.lite.Interpreter(model_content=network, num_threads=1)
    run = interpreter.get_signature_runner()
    parts = [run(**{PIXELS: images[at : at + 1]}) for at in range(len(images))]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
