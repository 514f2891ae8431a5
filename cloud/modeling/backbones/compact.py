"""Small network that is trained from scratch on a CPU, for small pictures of what ImageNet does not have.

Frozen ImageNet features distinguish cats from dogs; they do not read the digits of a meter. With hundreds of
labels this network does, in minutes (docs/experiments.md).

Source: Simonyan and Zisserman, Very Deep Convolutional Networks (ICLR 2015): pairs of 3 x 3 convolutions;
with batch normalisation, and one convolution over all places in the end instead of dense layers.
"""

import keras

from cloud.modeling.backbones.base import Backbone
from cloud.modeling.decoding import CHANNELS

INPUT_SIZE_PX = 32
EMBEDDING_DIM = 128

_FILTERS = (32, 64, 128)
# As for xception-small: a training on few photos has few steps.
_BATCH_NORM_MOMENTUM = 0.9


def build() -> keras.Model:
    """Build the network with random weights from Keras' global seed.

    Returns:
        float32 `[None, 32, 32, 3]` to float32 `[None, 128]`, trainable.
    """
    inputs = keras.Input((INPUT_SIZE_PX, INPUT_SIZE_PX, CHANNELS))
    x = inputs
    for filters in _FILTERS:
        x = _convolution(_convolution(x, filters), filters)
        x = keras.layers.MaxPooling2D()(x)
    # Not averaged over the places: the position of a stroke distinguishes a 6 from a 9.
    x = _convolution(x, EMBEDDING_DIM, kernel=x.shape[1], padding="valid")
    return keras.Model(inputs, keras.layers.Flatten()(x), name="compact")


def _convolution(
    x: keras.KerasTensor, filters: int, *, kernel: int = 3, padding: str = "same"
) -> keras.KerasTensor:
    x = keras.layers.Conv2D(filters, kernel, padding=padding, use_bias=False)(x)
    # Synchronised: a batch has the same statistics, with any number of workers.
    x = keras.layers.BatchNormalization(momentum=_BATCH_NORM_MOMENTUM, synchronized=True)(x)
    return keras.layers.ReLU()(x)


COMPACT = Backbone(
    name="compact",
    input_size_px=INPUT_SIZE_PX,
    offset=127.5,
    scale=127.5,
    embedding_dim=EMBEDDING_DIM,
    pretrained=False,
    build=build,
    mirrored=False,
    min_crop=0.9,
)
