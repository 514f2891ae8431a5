"""Small Xception that can be trained from scratch on a CPU.

Source: Chollet, Xception: Deep Learning with Depthwise Separable Convolutions (CVPR 2017), figure 5:
its entry, middle and exit flow at 96 pixels, a quarter of the width and two of the eight middle blocks.
"""

import keras

from cloud.modeling.backbones.base import Backbone
from cloud.modeling.decoding import CHANNELS

INPUT_SIZE_PX = 96
WIDTH = 0.25  # of the paper's channel counts
MIDDLE_BLOCKS = 2

_ENTRY_FILTERS = (128, 256, 728)
_MIDDLE_FILTERS = 728
_EXIT_FILTERS = (728, 1024)
_TOP_FILTERS = (1536, 2048)

# With the usual 0.99 the running statistics need hundreds of steps; a training on few photos has fewer.
_BATCH_NORM_MOMENTUM = 0.9


def build() -> keras.Model:
    """Build the network with random weights from Keras' global seed.

    Returns:
        float32 `[None, 96, 96, 3]` to float32 `[None, 512]`, trainable.
    """
    inputs = keras.Input((INPUT_SIZE_PX, INPUT_SIZE_PX, CHANNELS))
    x = _entry_flow(inputs)
    for _ in range(MIDDLE_BLOCKS):
        x = _middle_block(x)
    x = _exit_flow(x)
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x), name="xception_small")


def _entry_flow(x: keras.KerasTensor) -> keras.KerasTensor:
    for filters, stride in ((32, 2), (64, 1)):
        x = keras.layers.Conv2D(_narrow(filters), 3, strides=stride, padding="same", use_bias=False)(x)
        x = keras.layers.ReLU()(_normalised(x))
    for position, filters in enumerate(_ENTRY_FILTERS):
        before = x
        if position > 0:
            x = keras.layers.ReLU()(x)
        x = _separable(x, filters)
        x = _separable(keras.layers.ReLU()(x), filters)
        x = _halved(x, before, filters)
    return x


def _middle_block(x: keras.KerasTensor) -> keras.KerasTensor:
    before = x
    for _ in range(3):
        x = _separable(keras.layers.ReLU()(x), _MIDDLE_FILTERS)
    return keras.layers.Add()([x, before])


def _exit_flow(x: keras.KerasTensor) -> keras.KerasTensor:
    before = x
    for filters in _EXIT_FILTERS:
        x = _separable(keras.layers.ReLU()(x), filters)
    x = _halved(x, before, _EXIT_FILTERS[-1])
    for filters in _TOP_FILTERS:
        x = keras.layers.ReLU()(_separable(x, filters))
    return x


def _halved(x: keras.KerasTensor, before: keras.KerasTensor, filters: int) -> keras.KerasTensor:
    """Pool by two and add the block's input, projected by a strided 1 x 1 convolution."""
    pooled = keras.layers.MaxPooling2D(3, strides=2, padding="same")(x)
    projected = keras.layers.Conv2D(_narrow(filters), 1, strides=2, padding="same", use_bias=False)(before)
    return keras.layers.Add()([pooled, _normalised(projected)])


def _separable(x: keras.KerasTensor, filters: int) -> keras.KerasTensor:
    return _normalised(keras.layers.SeparableConv2D(_narrow(filters), 3, padding="same", use_bias=False)(x))


def _normalised(x: keras.KerasTensor) -> keras.KerasTensor:
    # Synchronised: a batch has the same statistics, with any number of workers.
    return keras.layers.BatchNormalization(momentum=_BATCH_NORM_MOMENTUM, synchronized=True)(x)


def _narrow(filters: int) -> int:
    return int(filters * WIDTH)


XCEPTION_SMALL = Backbone(
    name="xception-small",
    input_size_px=INPUT_SIZE_PX,
    offset=127.5,
    scale=127.5,
    embedding_dim=_narrow(_TOP_FILTERS[-1]),
    pretrained=False,
    build=build,
)
