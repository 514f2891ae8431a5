"""The photos of a run: drawn ones, or those of a folder that somebody names."""

import hashlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from demo.synthetic import LOOKS, draw_collection
from device.cameras.replay import photo_files
from schemas.errors import PermanentError

SPLITS = ("train", "gold", "stream")
LABELLED_PER_CLASS = 5
DRAWN = {"train": 10, "gold": 200, "stream": 300}
_LEAST_PER_CLASS = {"train": LABELLED_PER_CLASS, "gold": 5, "stream": 10}
_MOST = {"gold": 400, "stream": 800}
"""Photos that are taken of a folder without splits, so that a large one does not take hours."""
_LAYOUT = "one folder per class, or train/ stream/ gold/ above them"

Classes = Mapping[str, list[Path]]


@dataclass(frozen=True, slots=True)
class Collection:
    """Folders with one folder per class each, and how many photos are in them.

    Args:
        root: Above `train/ gold/ stream/`.
        counts: Photos by split.
        duplicates: Photos left out because their content is in another split, or twice in the same.
    """

    root: Path
    counts: Mapping[str, int]
    duplicates: int

    @property
    def labelled(self) -> Path:
        """A few photos with a person's label."""
        return self.root / "train"

    @property
    def gold(self) -> Path:
        """Photos that judge and are never trained on."""
        return self.root / "gold"

    @property
    def stream(self) -> Path:
        """What the cameras see."""
        return self.root / "stream"


def draw(directory: Path, seed: int) -> Iterator[Path]:
    """Draw cats and dogs as four different cameras see them, one photo with each step."""
    return draw_collection(directory, counts=DRAWN, looks=list(LOOKS.values()), seed=seed)


def collect(source: Path, target: Path, seed: int) -> Collection:
    """Choose this run's photos from a folder, and link to them below `target`.

    A content is taken once, and rather judged on than streamed: a photo of the gold set must not be learnt.

    Args:
        source: One folder per class, or `train/ stream/ gold/` above them.
        target: A folder of our own.
        seed: Of the split and of the choice.

    Raises:
        PermanentError: The folder is neither, has too few photos, or a photo that cannot be read.
    """
    splits = _splits(source, seed)
    _check(source, splits)
    counts, seen, duplicates = dict[str, int](), set[bytes](), 0
    for split in SPLITS:
        chosen = [(name, file) for name, files in splits[split].items() for file in files]
        counts[split] = 0
        for number, (name, file) in enumerate(chosen):
            content = _digest(file)
            if content in seen:
                duplicates += 1
                continue
            seen.add(content)
            counts[split] += 1
            link = target / split / name / f"{number:05d}{file.suffix}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file.resolve())
    return Collection(target, counts, duplicates)


def _splits(source: Path, seed: int) -> dict[str, Classes]:
    """Return the files of each split by class, in a random order; of `train`, the few that are labelled."""
    if not source.is_dir():
        raise PermanentError(f"photos {source}", expected="a folder", got="none there")
    there = [split for split in SPLITS if (source / split).is_dir()]
    if not there:
        return _divided(_by_class(source, seed))
    if len(there) < len(SPLITS):
        raise PermanentError(
            f"photos {source}", expected=_LAYOUT, got=", ".join(f"{name}/" for name in there)
        )
    splits = {split: _by_class(source / split, seed) for split in SPLITS}
    return splits | {"train": {name: files[:LABELLED_PER_CLASS] for name, files in splits["train"].items()}}


def _by_class(directory: Path, seed: int) -> Classes:
    folders = sorted(path for path in directory.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(folders) < 2:  # noqa: PLR2004  # a choice needs two
        raise PermanentError(f"photos {directory}", expected=_LAYOUT, got=f"{len(folders)} folders")
    classes = {folder.name: photo_files(folder) for folder in folders}
    for name, files in classes.items():
        random.Random(f"{seed} {name}").shuffle(files)  # noqa: S311  # a choice of photos is no secret
    return classes


def _divided(classes: Classes) -> dict[str, Classes]:
    """Divide the files of each class: a few labelled ones, and of the others a third is gold."""
    splits: dict[str, dict[str, list[Path]]] = {split: {} for split in SPLITS}
    for name, files in classes.items():
        if len(files) < sum(_LEAST_PER_CLASS.values()):
            least = sum(_LEAST_PER_CLASS.values())
            raise PermanentError(f"photos of {name}", expected=f"at least {least}", got=len(files))
        splits["train"][name], others = files[:LABELLED_PER_CLASS], files[LABELLED_PER_CLASS:]
        third = len(others) // 3
        splits["gold"][name] = others[:third][: _MOST["gold"] // len(classes)]
        splits["stream"][name] = others[third:][: _MOST["stream"] // len(classes)]
    return dict(splits)


def _check(source: Path, splits: Mapping[str, Classes]) -> None:
    names = list(splits["train"])
    for split, classes in splits.items():
        if list(classes) != names:
            raise PermanentError(
                f"photos {source}",
                expected=f"in {split}/ the classes of train/: {', '.join(names)}",
                got=", ".join(classes),
            )
        for name, files in classes.items():
            if len(files) < _LEAST_PER_CLASS[split]:
                raise PermanentError(
                    f"photos {source}",
                    expected=f"at least {_LEAST_PER_CLASS[split]} of {name} for {split}",
                    got=len(files),
                )


def _digest(file: Path) -> bytes:
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "blake2b").digest()
    except OSError as error:
        raise PermanentError(f"photo {file}", expected="a readable file", got=error.strerror) from None
