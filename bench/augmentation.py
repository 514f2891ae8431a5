"""Which copies of the labelled photos help a head: `python -m bench.augmentation --photos DIR`.

Embeds photos of `DIR/train` as they are and changed, trains heads on a few labels with each choice of copies,
and judges them on `DIR/gold`. Both come as they are and as an ageing camera at dusk would see them: a column
`40: 0 → 0.5` has 40 labels of photos as they are, judged at half the drift. Nothing is chosen by gold.
"""

import argparse
import contextlib
import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

from cloud.modeling.backbones import EFFICIENTNET_LITE0, Backbone, preprocess
from cloud.modeling.linear_head import Head, fit_head
from cloud.training.embeddings import dimmed
from cloud.training.from_scratch import augmented
from device.cameras.replay import photo_files

Vectors = NDArray[np.float32]
Change = Callable[[tf.Tensor], tf.Tensor]

DRAWS = 12
POOL = 150  # photos per class that the labels are drawn from
LABELS = (10, 40, 200)
STRENGTHS = (0.0, 0.5, 0.8)
_BATCH_PHOTOS = 32
_PLAN: Backbone = EFFICIENTNET_LITE0


def blurred(images: tf.Tensor) -> tf.Tensor:
    """Keep a quarter of the resolution."""
    size = _PLAN.input_size_px
    return tf.image.resize(tf.image.resize(images, (size // 4, size // 4), antialias=True), (size, size))


def turned(images: tf.Tensor) -> tf.Tensor:
    """Turn by a right angle, each photo to a side of its own."""
    sides = tf.range(tf.shape(images)[0]) % 2 * 2 + 1
    return tf.map_fn(
        lambda one: tf.image.rot90(one[0], one[1]), (images, sides), fn_output_signature=tf.float32
    )


CHANGES: dict[str, Change] = {
    "plain": lambda images: images,
    "mirrored": lambda images: tf.reverse(images, [2]),
    "cropped": lambda images: augmented(
        images, tf.constant([0, 1]), slice(tf.shape(images)[0]), _BATCH_PHOTOS
    ),
    "dimmed": lambda images: dimmed(images, _PLAN),
    "blurred": blurred,
    "turned": turned,
}
WAYS = (
    ("plain",),
    ("plain", "mirrored"),
    ("plain", "cropped"),
    ("plain", "dimmed"),
    ("plain", "blurred"),
    ("plain", "turned"),
    ("plain", "mirrored", "dimmed"),
    ("plain", "mirrored", "dimmed", "turned"),
    tuple(CHANGES),
)


def drifted(image: bytes, strength: float, seed: int) -> bytes:
    """Show a photo as an ageing camera at dusk would: turned, dark, grey, blurred, noisy, without red.

    Args:
        image: Encoded.
        strength: 0 leaves it as it is; 1 is a turn to ±90°, 75 % of the light, 90 % of the colour, a blur of
            3 px, noise of 18 and 30 % of the red.
        seed: Of turn and noise.
    """
    if strength == 0:
        return image
    generator = np.random.default_rng(seed)
    picture = Image.open(io.BytesIO(image)).convert("RGB")
    picture = picture.rotate(generator.uniform(-90, 90) * strength)
    picture = ImageEnhance.Brightness(picture).enhance(1 - 0.75 * strength)
    picture = ImageEnhance.Color(picture).enhance(1 - 0.9 * strength)
    picture = picture.filter(ImageFilter.GaussianBlur(3 * strength))
    array = np.asarray(picture, np.float64) * (1 - 0.3 * strength, 1, 1)
    array += generator.normal(0, 18 * strength, array.shape)
    out = io.BytesIO()
    Image.fromarray(array.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=90)
    return out.getvalue()


def measure(photos: Path) -> dict[str, dict[tuple[int, float, float], float]]:
    """Return, by way, the mean accuracy on gold by number of labels, drift of theirs and drift of gold."""
    network = _PLAN.build()

    def embed(files: list[Path], strength: float, change: Change) -> Vectors:
        run = tf.function(lambda batch: network(change(preprocess(_PLAN, batch)), training=False))
        images = [drifted(file.read_bytes(), strength, at) for at, file in enumerate(files)]
        starts = range(0, len(images), _BATCH_PHOTOS)
        return np.concatenate([run(tf.constant(images[at : at + _BATCH_PHOTOS])).numpy() for at in starts])

    files, judges = photo_files(photos / "train"), photo_files(photos / "gold")
    names = sorted({file.parent.name for file in files})
    pool = [file for name in names for file in [f for f in files if f.parent.name == name][:POOL]]
    truth, gold_truth = (
        np.array([names.index(file.parent.name) for file in chosen]) for chosen in (pool, judges)
    )
    gold = {strength: embed(judges, strength, CHANGES["plain"]) for strength in STRENGTHS}
    found: dict[str, dict[tuple[int, float, float], float]] = {}
    for drift in STRENGTHS:
        copies = {name: embed(pool, drift, change) for name, change in CHANGES.items()}
        print(f"the pool is embedded at drift {drift:g}", file=sys.stderr, flush=True)
        for way in WAYS:
            shown = [copies[name] for name in way]
            for count in LABELS:
                heads = [_head(shown, truth, _balanced(truth, count, draw)) for draw in range(DRAWS)]
                for strength in STRENGTHS if drift == 0 else (drift,):
                    right = [head.logits(gold[strength]).argmax(axis=1) == gold_truth for head in heads]
                    found.setdefault(" + ".join(way), {})[count, drift, strength] = float(np.mean(right))
    return found


def _head(shown: list[Vectors], truth: NDArray[np.int64], chosen: NDArray[np.int64]) -> Head:
    """Train on all copies of the chosen photos."""
    labels = np.tile(truth[chosen], len(shown))
    vectors = np.concatenate([copies[chosen] for copies in shown])
    return fit_head(vectors, labels, np.ones(len(labels)), len(np.unique(truth)))


def _balanced(truth: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Draw as many of each class."""
    generator, classes = np.random.default_rng(seed), np.unique(truth)
    return np.concatenate(
        [generator.permutation(np.flatnonzero(truth == name))[: count // len(classes)] for name in classes]
    )


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="a folder with train/ and gold/")
    with contextlib.redirect_stdout(sys.stderr):
        found = measure(parser.parse_args().photos)
    columns = sorted(next(iter(found.values())))
    print("| copies | " + " | ".join(f"{count}: {a:g} → {b:g}" for count, a, b in columns) + " |")
    print("|---" * (1 + len(columns)) + "|")
    for way, accuracies in found.items():
        print(f"| {way} | " + " | ".join(f"{100 * accuracies[column]:.1f}" for column in columns) + " |")


if __name__ == "__main__":
    main()
