"""How far fine-tuning lifts the ceiling under drift: `python -m bench.learning.finetune --photos DIR`.

All labels of the drifted stream are known, as for the policy `all labels`. The lower blocks stay frozen; the
upper ones are trained with the head, on photos and their mirror images.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from bench.learning.world import CLASSES, STRENGTHS, Worlds
from cli.progress import Bars
from cloud.modeling.arrays import Ints
from cloud.modeling.backbones import EFFICIENTNET_LITE0, preprocess
from cloud.modeling.linear_head import fit_head
from cloud.progress import Progress

_BATCH = 32
_UPPER_SIZE_PX = 7
RATES = (3e-4, 1e-3, 3e-3)
EPOCHS = 10

Floats32 = NDArray[np.float32]


def split_network(network: keras.Model) -> tuple[keras.Model, keras.Model]:
    """Cut a network where its maps shrink to 7 x 7 pixels: the lower part, and a trainable upper one."""
    places = [
        place
        for place, layer in enumerate(network.layers)
        if isinstance(layer, keras.layers.DepthwiseConv2D) and layer.output.shape[1] == _UPPER_SIZE_PX
    ]
    between = network.layers[places[0] - 2].input  # what the block's expansion is fed
    upper = keras.Model(between, network.outputs[0])
    trainable = keras.models.clone_model(upper)
    trainable.set_weights(upper.get_weights())
    trainable.trainable = True
    return keras.Model(network.inputs, between), trainable


def features(lower: keras.Model, images: Sequence[bytes], *, mirrored: bool, progress: Progress) -> Floats32:
    """Run the lower part on encoded photos: `[N, H, W, C]`."""
    progress.start("run the lower blocks", len(images))
    parts = []
    for start in range(0, len(images), _BATCH):
        batch = preprocess(EFFICIENTNET_LITE0, tf.constant(images[start : start + _BATCH]))
        parts.append(lower(tf.reverse(batch, [2]) if mirrored else batch, training=False).numpy())
        progress.advance(len(parts[-1]))
    return np.concatenate(parts)


def embeddings(upper: keras.Model, maps: Floats32) -> Floats32:
    """Run the upper part: `[N, D]`."""
    batches = (maps[start : start + 2 * _BATCH] for start in range(0, len(maps), 2 * _BATCH))
    return np.concatenate([upper(batch, training=False).numpy() for batch in batches])


def finetune(upper: keras.Model, maps: Floats32, labels: Ints, rate: float, seed: int) -> keras.Model:
    """Train the upper part and a head that starts as the best one for it; returns both as one network."""
    head = fit_head(embeddings(upper, maps), labels, np.ones(len(labels)), len(CLASSES))
    keras.utils.set_random_seed(seed)
    dense = keras.layers.Dense(len(CLASSES))
    inputs = keras.Input(maps.shape[1:])
    network = keras.Model(inputs, dense(upper(inputs)))
    dense.set_weights([head.kernel.astype(np.float32), head.bias.astype(np.float32)])
    steps = EPOCHS * len(labels) // _BATCH
    network.compile(
        keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(rate, steps), weight_decay=1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    network.fit(maps, labels, batch_size=_BATCH, epochs=EPOCHS, verbose=0)
    return network


def measure(worlds: Worlds, seed: int, progress: Progress) -> dict[str, dict[str, float]]:
    """Return accuracy on gold by way of training and strength of drift."""
    lower, upper = split_network(EFFICIENTNET_LITE0.build())
    world = worlds.make("drift", seed)
    learnt = [world.labelled, *(round_.stream for round_ in world.rounds)]
    images = [image for photos in learnt for image in photos.images]
    maps = np.concatenate(
        [features(lower, images, mirrored=mirrored, progress=progress) for mirrored in (False, True)]
    )
    labels = np.tile(np.concatenate([photos.truth for photos in learnt]), 2)
    judged = {
        str(strength): round_.gold for strength, round_ in zip(STRENGTHS["drift"], world.rounds, strict=True)
    }
    gold = {
        at: features(lower, photos.images, mirrored=False, progress=progress) for at, photos in judged.items()
    }
    head = fit_head(embeddings(upper, maps), labels, np.ones(len(labels)), len(CLASSES))

    def accuracy(answers: dict[str, NDArray[np.floating]]) -> dict[str, float]:
        return {at: float((said.argmax(axis=1) == judged[at].truth).mean()) for at, said in answers.items()}

    ways = {"frozen": accuracy({at: head.logits(embeddings(upper, seen)) for at, seen in gold.items()})}
    for rate in RATES:
        _, upper = split_network(EFFICIENTNET_LITE0.build())
        network = finetune(upper, maps, labels, rate, seed)
        said = {at: network.predict(seen, verbose=0) for at, seen in gold.items()}
        ways[f"fine-tuned at {rate:g}"] = accuracy(said)
    return ways


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(prog="bench.learning.finetune", description=__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="the collection, with manifest.csv")
    parser.add_argument("--seeds", type=int, default=1, help="(1)")
    arguments = parser.parse_args()
    with Bars() as bars:
        worlds = Worlds(arguments.photos, Path(".cache/features"), bars)
        seen = [measure(worlds, seed, bars) for seed in range(arguments.seeds)]
    means = {
        way: {at: round(float(np.mean([one[way][at] for one in seen])), 4) for at in accuracies}
        for way, accuracies in seen[0].items()
    }
    sys.stdout.write(
        json.dumps({"seeds": arguments.seeds, "gold accuracy by strength": means}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
