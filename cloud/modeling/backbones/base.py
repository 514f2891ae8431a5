"""Backbone: a network from an image to an embedding, with the preprocessing that it expects."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from schemas.errors import PermanentError

CHANNELS = 3  # RGB; `decode_image` converts grey and alpha


class BackboneUnavailableError(PermanentError):
    """The backbone is unknown, or its weights are not available; the message names what to use instead."""


@dataclass(frozen=True, slots=True)
class Backbone:
    """A network from an image to an embedding.

    Attributes:
        name: its name in commands, model cards and cache files.
        input_size_px: height and width of the square input, in pixels.
        offset: subtracted from each channel value in [0, 255].
        scale: divides the difference; the network sees `(value - offset) / scale`.
        embedding_dim: D, length of the embedding.
        pretrained: True if its pretrained weights are frozen and only a head is trained; False if it is
            trained from scratch together with its head.
        build: builds the network, float32 `[None, H, W, 3]` to float32 `[None, D]`.
            Raises BackboneUnavailableError if its weights are not available.
    """

    name: str
    input_size_px: int
    offset: float
    scale: float
    embedding_dim: int
    pretrained: bool
    build: Callable[[], keras.Model]


def preprocess(backbone: Backbone, encoded: tf.Tensor) -> tf.Tensor:
    """Decode, resize and normalise photos inside a TensorFlow graph; EXIF orientation is not applied.

    Training, evaluation and serving all trace this function, so their inputs cannot differ.

    Args:
        backbone: defines input size and normalisation.
        encoded: string `[None]`, JPEG, PNG, GIF (first frame) or BMP files.

    Returns:
        float32 `[None, H, W, 3]`. At run time, a photo that cannot be decoded raises
        `tf.errors.InvalidArgumentError` for the whole batch.
    """
    size = (backbone.input_size_px, backbone.input_size_px)

    def decode(photo: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_image(photo, channels=CHANNELS, expand_animations=False)
        image.set_shape([None, None, CHANNELS])  # `decode_image` leaves the rank unknown to the graph
        # Not cropped to the aspect ratio: a crop could lose the subject.
        return tf.image.resize(image, size, method="bilinear", antialias=True)

    signature = tf.TensorSpec([*size, CHANNELS], tf.float32)
    resized = tf.map_fn(decode, encoded, fn_output_signature=signature, name="decode")
    return (resized - backbone.offset) / backbone.scale


def weights_digest(network: keras.Model) -> str:
    """Return the 128-bit BLAKE2b of a network's weights, in their order, as 32 hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    for weight in network.get_weights():
        array = np.ascontiguousarray(weight)
        # Type and shape too: other arrays may have the same bytes.
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()
