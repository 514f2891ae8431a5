"""Collections of synthetic photos whose splits have no photo in common."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from demo.synthetic.photo import LOOKS, Look, draw
from demo.synthetic.traits import CLASSES

SPLITS = ("train", "stream", "gold", "camera")
"""Purposes of photos; "camera" is for those of the camera `drawn`."""

_SEEDS_PER_SPLIT = 1 << 32


def seed_of(split: str, seed: int, number: int) -> int:
    """Return the drawing seed of a photo, unique for each split, seed and number.

    Args:
        split: One of SPLITS.
        seed: Seed of the collection, 0 or more.
        number: Number of the photo in its split, below 2**32.

    Raises:
        ValueError: The split is unknown, or a number is out of range.
    """
    if split not in SPLITS or seed < 0 or not 0 <= number < _SEEDS_PER_SPLIT:
        raise ValueError(
            f"drawing: expected one of {', '.join(SPLITS)}, a seed from 0 and a number below 2**32,"
            f" got {split!r}, {seed} and {number}"
        )
    # Disjoint ranges per seed and split, so that no photo of gold can appear in another split.
    return (seed * len(SPLITS) + SPLITS.index(split)) * _SEEDS_PER_SPLIT + number


def draw_collection(
    directory: Path,
    *,
    counts: Mapping[str, int],
    classes: Sequence[str] = CLASSES,
    looks: Sequence[Look] = (LOOKS["daylight"],),
    seed: int = 0,
) -> Iterator[Path]:
    """Draw photos into `directory/split/class/class-number.jpg`, one per step of the iteration.

    Args:
        directory: Created if missing; files of the same name are replaced.
        counts: Photos per split, divided evenly among the classes.
        classes: Classes to draw.
        looks: Looks of the cameras, used in turn.
        seed: Another seed gives different photos.

    Yields:
        The path of each file; a photo takes about 15 ms.
    """
    for split, count in counts.items():
        for label, number, drawing in _numbered(count, classes):
            path = directory / split / label / f"{label}-{drawing:05d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            look = looks[drawing % len(looks)]
            path.write_bytes(draw(label, seed_of(split, seed, number), look))
            yield path


def _numbered(count: int, classes: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Yield the class, the number in the split and the number in the class of each photo."""
    for number in range(count):
        yield classes[number % len(classes)], number, number // len(classes)
