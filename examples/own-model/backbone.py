"""Your own network as a backbone: inverted residual blocks as in MobileNetV2, in plain Keras.

    python backbone.py mine.keras
    gleaner cloud train --backbone mine.keras:signed

Here the weights are random; train the network on photos like yours first, or load weights that you have.
Gleaner freezes it and trains a head on its embeddings. What a backbone takes and gives is in
docs/model-contract.md.
"""

import sys

import keras

SIDE_PX = 64
BLOCKS = ((1, 16, 1), (6, 24, 2), (6, 24, 1), (6, 32, 2), (6, 64, 2))  # expansion, filters, stride


def build() -> keras.Model:
    """Build the network: float32 [N, 64, 64, 3] in -1 to 1, to embeddings [N, 128]."""
    keras.utils.set_random_seed(0)
    pixels = keras.Input((SIDE_PX, SIDE_PX, 3))
    x = convolution(pixels, 16, kernel=3, stride=2)
    for expansion, filters, stride in BLOCKS:
        x = block(x, expansion, filters, stride)
    x = convolution(x, 128)
    return keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(x))


def block(x, expansion, filters, stride):
    """Expand, filter each channel, project; add the input where the shapes match."""
    before = x
    x = convolution(x, before.shape[-1] * expansion)
    x = keras.layers.DepthwiseConv2D(3, strides=stride, padding="same", use_bias=False)(x)
    x = keras.layers.ReLU(6)(keras.layers.BatchNormalization()(x))
    x = keras.layers.Conv2D(filters, 1, use_bias=False)(x)
    x = keras.layers.BatchNormalization()(x)
    return keras.layers.Add()([before, x]) if before.shape == x.shape else x


def convolution(x, filters, kernel=1, stride=1):
    x = keras.layers.Conv2D(filters, kernel, strides=stride, padding="same", use_bias=False)(x)
    return keras.layers.ReLU(6)(keras.layers.BatchNormalization()(x))


if __name__ == "__main__":
    build().save(sys.argv[1])
