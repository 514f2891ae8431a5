"""Collections of drawn photos whose splits share no drawing."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from demo.synthetic.photo import LOOKS, Look, draw
from demo.synthetic.traits import CLASSES

SPLITS = ("train", "stream", "gold", "camera")
"""What drawings are for; "camera" is what a drawn camera sees."""

_SEEDS_PER_SPLIT = 1 << 32


def seed_of(split: str, seed: int, number: int) -> int:
    """Return the drawing seed of a photo: another one for each split, seed and number.

    Args:
        split: One of SPLITS.
        seed: Of the collection, 0 or more.
        number: Of the photo in its split, 0 up to below 2**32.

    Raises:
        ValueError: There is no such split, or a number is out of range.
    """
    if split not in SPLITS or seed < 0 or not 0 <= number < _SEEDS_PER_SPLIT:
        raise ValueError(
            f"drawing: expected one of {', '.join(SPLITS)}, a seed from 0 and a number below 2**32,"
            f" got {split!r}, {seed} and {number}"
        )
    return (seed * len(SPLITS) + SPLITS.index(split)) * _SEEDS_PER_SPLIT + number


def draw_collection(
    directory: Path,
    *,
    counts: Mapping[str, int],
    classes: Sequence[str] = CLASSES,
    looks: Sequence[Look] = (LOOKS["daylight"],),
    seed: int = 0,
) -> Iterator[Path]:
    """Write drawn photos as `directory/split/class/class-number.jpg`, one with each step of the iteration.

    Args:
        directory: Made if missing; files of the same name are replaced.
        counts: Photos per split, shared evenly by the classes.
        classes: Which classes to draw.
        looks: Cameras, taken in turn.
        seed: Another seed gives other photos.

    Yields:
        Each file; a photo takes about 15 ms.
    """
    for split, count in counts.items():
        for label, number, drawing in _numbered(count, classes):
            path = directory / split / label / f"{label}-{drawing:05d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            look = looks[drawing % len(looks)]
            path.write_bytes(draw(label, seed_of(split, seed, number), look))
            yield path


def _numbered(count: int, classes: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Yield class, number in the split and number in the class of each photo."""
    for number in range(count):
        yield classes[number % len(classes)], number, number // len(classes)
