"""What a backbone is: a network from pixels to an embedding, with the preprocessing that it expects."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from schemas.errors import PermanentError

CHANNELS = 3  # RGB, whatever the file holds


class BackboneUnavailableError(PermanentError):
    """There is no such backbone, or its weights are not available; the message names what to use instead."""


@dataclass(frozen=True, slots=True)
class Backbone:
    """A network from pixels to an embedding.

    Attributes:
        name: the name in commands, on model cards and in cache files.
        input_size_px: height and width of the square input, in pixels.
        offset: subtracted from each channel value in [0, 255].
        scale: divides the difference; the network sees `(value - offset) / scale`.
        embedding_dim: D, length of the embedding.
        pretrained: True if the weights come with the backbone and stay as they are, so that only a
            head is trained; False if it is trained from scratch together with its head.
        build: makes the network, float32 `[None, H, W, 3]` to float32 `[None, D]`.
            Raises BackboneUnavailableError if its weights cannot be had.
    """

    name: str
    input_size_px: int
    offset: float
    scale: float
    embedding_dim: int
    pretrained: bool
    build: Callable[[], keras.Model]


def pixels(backbone: Backbone, encoded: tf.Tensor) -> tf.Tensor:
    """Decode, resize and normalise photos inside a TensorFlow graph.

    Features, evaluation and serving all trace this one function, so they cannot differ. The resize
    does not keep the aspect ratio: a crop could lose the subject. EXIF orientation is not applied.

    Args:
        backbone: whose input is wanted.
        encoded: string `[None]`, JPEG, PNG, GIF (first frame) or BMP files.

    Returns:
        float32 `[None, H, W, 3]`, normalised for the backbone. When run, a photo that cannot be
        decoded raises `tf.errors.InvalidArgumentError` for the whole batch.
    """
    size = (backbone.input_size_px, backbone.input_size_px)

    def decode(photo: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_image(photo, channels=CHANNELS, expand_animations=False)
        image.set_shape([None, None, CHANNELS])
        return tf.image.resize(image, size, method="bilinear", antialias=True)

    signature = tf.TensorSpec([*size, CHANNELS], tf.float32)
    resized = tf.map_fn(decode, encoded, fn_output_signature=signature, name="decode")
    return (resized - backbone.offset) / backbone.scale


def weights_digest(network: keras.Model) -> str:
    """Name the state of a network.

    Returns:
        128-bit BLAKE2b over all weights in order, 32 hex digits.
    """
    digest = hashlib.blake2b(digest_size=16)
    for weight in network.get_weights():
        array = np.ascontiguousarray(weight)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()
