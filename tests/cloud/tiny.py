"""A pretrained backbone in miniature, for tests of what surrounds it: `--backbone tests.cloud.tiny:TINY`.

It recognises colours and brightness in the quarters of a photo, and is exported in a fraction of the time.
"""

from collections.abc import Sequence
from dataclasses import replace

import keras

from cloud.modeling.backbones import Backbone

NAME = f"{__name__}:TINY"
"""Its name in commands that run in the checkout."""


def build(filters: Sequence[int] = (16, 24)) -> keras.Model:
    """Build the network, the same in every process; its embedding has four times the last filters."""
    inputs = keras.Input((32, 32, 3))
    x = inputs
    for layer, count in enumerate(filters):
        x = keras.layers.Conv2D(
            count,
            3,
            strides=2,
            activation="relu",
            kernel_initializer=keras.initializers.HeNormal(seed=layer),
        )(x)
    return keras.Model(inputs, keras.layers.Flatten()(keras.layers.AveragePooling2D(3)(x)))


TINY = Backbone("tiny", 32, 127.5, 127.5, 96, pretrained=True, build=build)
UNMIRRORED = replace(TINY, name="tiny-unmirrored", mirrored=False)
"""The same for what a mirror image changes, such as digits."""
