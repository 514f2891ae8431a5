"""Backbone: a network from an image to an embedding, with the preprocessing that it expects."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import keras
import numpy as np
import tensorflow as tf

from cloud.modeling.decoding import CHANNELS, decode_stored, read_orientation, turn_upright


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
        mirrored: whether a training from scratch mirrors half of the photos, and the teacher learns from
            mirror images; False where a mirror image may show something else, such as digits.
        min_crop: smallest height and width of a random crop in a training from scratch, as a share; closer to
            1 where a part of the picture may show something else.
    """

    name: str
    input_size_px: int
    offset: float
    scale: float
    embedding_dim: int
    pretrained: bool
    build: Callable[[], keras.Model]
    mirrored: bool = True
    min_crop: float = 0.65


def preprocess(backbone: Backbone, encoded: tf.Tensor) -> tf.Tensor:
    """Decode, resize, turn upright and normalise photos inside a TensorFlow graph.

    Training, evaluation and serving all trace this function, so their inputs cannot differ.

    Args:
        backbone: defines input size and normalisation.
        encoded: string `[None]`, JPEG or PNG files.

    Returns:
        float32 `[None, H, W, 3]`. At run time, a photo that cannot be decoded raises
        `tf.errors.InvalidArgumentError` for the whole batch.
    """
    pixels = _decoder(backbone.input_size_px)(encoded)
    return (pixels - backbone.offset) / backbone.scale


@cache
def _decoder(size_px: int) -> tf.types.experimental.PolymorphicFunction:
    """Return the graph from encoded photos to pixels, float32 `[None, size_px, size_px, 3]`.

    Traced once per process, which takes a second, however many graphs contain it. It has no Python control
    flow for AutoGraph to convert, which would take several times as long.
    """
    size = (size_px, size_px)

    def decode(photo: tf.Tensor) -> tf.Tensor:
        # Not cropped to the aspect ratio: a crop could lose the subject.
        square = tf.image.resize(decode_stored(photo), size, method="bilinear", antialias=True)
        # Turned only now: the filter is symmetric, and a photo of a phone has fifty times the pixels.
        upright = turn_upright(square, read_orientation(photo))
        upright.set_shape([*size, CHANNELS])
        return upright

    def decode_all(encoded: tf.Tensor) -> tf.Tensor:
        signature = tf.TensorSpec([*size, CHANNELS], tf.float32)
        return tf.map_fn(decode, encoded, fn_output_signature=signature, name="decode")

    return tf.function(decode_all, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)


def weights_digest(network: keras.Model) -> str:
    """Return the 128-bit BLAKE2b of a network's weights, in their order, as 32 hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    for weight in network.get_weights():
        array = np.ascontiguousarray(weight)
        # Type and shape too: other arrays may have the same bytes.
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()
