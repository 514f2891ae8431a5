"""Convert a network for LiteRT (formerly TensorFlow Lite) and run it."""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

PIXELS = "pixels"


def convert_network(
    module: tf.Module, answer: Callable[[tf.Tensor], dict[str, tf.Tensor]], shape: Sequence[int]
) -> bytes:
    """Convert a network with its float32 weights, for calls with one photo.

    Args:
        module: holds its variables.
        answer: from normalised pixels `[1, H, W, 3]` to outputs by name.
        shape: `(H, W, 3)`.

    Returns:
        The content of a `.tflite` file.
    """
    # A batch of one: larger ones are not faster in LiteRT, and the model server gives each photo to a thread.
    one = tf.TensorSpec([1, *shape], tf.float32, name=PIXELS)
    traced = tf.function(answer, input_signature=[one]).get_concrete_function()
    return bytes(tf.lite.TFLiteConverter.from_concrete_functions([traced], module).convert())


def run_network(network: bytes, images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Run a converted network.

    Args:
        network: what `convert_network` returned.
        images: normalised pixels `[N, H, W, 3]`, at least one.

    Returns:
        Outputs by name, each `[N, …]`.

    Raises:
        RuntimeError, ValueError: LiteRT cannot load or run it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that LiteRT will move out of TensorFlow's package
        interpreter = tf.lite.Interpreter(model_content=network, num_threads=1)
    run = interpreter.get_signature_runner()
    parts = [run(**{PIXELS: images[start : start + 1]}) for start in range(len(images))]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
