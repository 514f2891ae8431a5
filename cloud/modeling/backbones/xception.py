"""Xception with ImageNet weights, from Keras Applications.

Source: Chollet, Xception: Deep Learning with Depthwise Separable Convolutions (CVPR 2017).
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import keras

from cloud.modeling.backbones.base import CHANNELS, Backbone, BackboneUnavailableError

INPUT_SIZE_PX = 299
EMBEDDING_DIM = 2048

_SILENCE_LIMIT_S = 10.0


def build() -> keras.Model:
    """Build the network with ImageNet weights; Keras downloads them once (80 MB) and caches them.

    Returns:
        float32 `[None, 299, 299, 3]` to float32 `[None, 2048]`, not trainable.

    Raises:
        BackboneUnavailableError: the weights are neither in Keras' cache nor can they be downloaded.
    """
    shape = (INPUT_SIZE_PX, INPUT_SIZE_PX, CHANNELS)
    try:
        with _socket_timeout(_SILENCE_LIMIT_S):
            network = keras.applications.Xception(
                weights="imagenet", include_top=False, pooling="avg", input_shape=shape
            )
    except Exception as error:  # Keras raises a bare Exception when a download fails
        raise BackboneUnavailableError(
            f"cannot load xception: its weights are not in Keras' cache and cannot be downloaded ({error});"
            " use efficientnet-lite0 (its ImageNet weights are an installed package)"
            " or xception-small (trained from scratch, no weights needed)"
        ) from error
    network.trainable = False
    return network


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Limit the wait for a silent server."""
    # Keras has no timeout: behind a firewall that drops packets it would wait for ever.
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


XCEPTION = Backbone(
    name="xception",
    input_size_px=INPUT_SIZE_PX,
    offset=127.5,
    scale=127.5,
    embedding_dim=EMBEDDING_DIM,
    pretrained=True,
    build=build,
)
