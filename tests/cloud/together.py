"""A small network trained from scratch by one or several workers: `python -c WORKER FILE`."""

import sys
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from cloud.dataset.example import Example
from cloud.export.saved_model import warmup_photos
from cloud.modeling.backbones import Backbone
from cloud.progress import NoProgress
from cloud.training.candidates import from_scratch
from cloud.training.distributed import Team, join

WORKER = """
from cloud.modeling.load_tensorflow import load_tensorflow
load_tensorflow()  # before the module, whose own imports would also load what Keras finds
from tests.cloud import together
together.main()
"""


def build() -> keras.Model:
    """Build a network with everything that workers share: gradients and batch statistics."""
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(6, 3, use_bias=False)(inputs)
    x = keras.layers.BatchNormalization(momentum=0.9, synchronized=True)(x)
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x)))


TINY = Backbone("tiny", 16, 127.5, 127.5, 6, pretrained=False, build=build)


def fit(team: Team) -> list[NDArray[np.float32]]:
    """Train the network for a few steps on a few photos, and return all weights."""
    photos = [Example("", image, "", "human") for image in warmup_photos(6)]
    network, head = from_scratch.fit_network(
        TINY, photos, np.arange(6) % 2, np.ones(6) / 6, 2, seed=1, progress=NoProgress(), team=team
    )
    return [head.kernel.astype(np.float32), *network.get_weights()]


def main() -> None:
    """Train as one of several workers, and write the weights into the file of the command line."""
    from_scratch.STEPS = (5, 5)
    np.savez(Path(sys.argv[1]), *fit(join()))
