"""The photos of a run: drawn ones, or those of a folder that somebody names."""

import random
import shutil
from dataclasses import dataclass
from pathlib import Path

from device.drawn import LOOKS, write_collection
from device.replay import photo_files
from schemas.errors import PermanentError

SPLITS = ("train", "stream", "gold")
LABELLED_PER_CLASS = 5
_DRAWN = {"train": 40, "stream": 300, "gold": 200}
_LEAST_PER_CLASS = 15


@dataclass(frozen=True, slots=True)
class Collection:
    """Folders with one folder per class each: a few labelled photos, the stream, and the gold set."""

    labelled: Path
    stream: Path
    gold: Path


def collect(work: Path, source: Path | None, seed: int) -> Collection:
    """Return the photos of this run; what has to be written goes below `work`.

    Args:
        work: A folder of our own.
        source: One folder per class, or `train/ stream/ gold/` above them; None draws.
        seed: Of the drawing, of the split and of the choice of the labelled ones.

    Raises:
        PermanentError: The folder is neither, or has too few photos.
    """
    if source is None:
        write_collection(work / "photos", counts=_DRAWN, looks=list(LOOKS.values()), seed=seed)
        source = work / "photos"
    elif not source.is_dir():
        raise PermanentError(f"photos {source}", expected="a folder", got="none there")
    if not all((source / split).is_dir() for split in SPLITS):
        source = _split(source, work / "photos", seed)
    labelled = work / "labelled"
    for folder in class_folders(source / "train"):
        _copy(_chosen(folder, LABELLED_PER_CLASS, seed), labelled / folder.name)
    return Collection(labelled, source / "stream", source / "gold")


def class_folders(directory: Path) -> list[Path]:
    """Return the class folders of a folder.

    Raises:
        PermanentError: There are fewer than two.
    """
    folders = sorted(path for path in directory.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(folders) < 2:  # noqa: PLR2004  # a choice needs two
        raise PermanentError(
            f"photos {directory}",
            expected="one folder per class, or train/ stream/ gold/ above them",
            got=f"{len(folders)} folders",
        )
    return folders


def _split(source: Path, target: Path, seed: int) -> Path:
    """Copy a flat collection into the three splits: a quarter to train, half to stream, a quarter gold."""
    for folder in class_folders(source):
        files = _chosen(folder, None, seed)
        if len(files) < _LEAST_PER_CLASS:
            raise PermanentError(
                f"photos {folder}", expected=f"at least {_LEAST_PER_CLASS} photos", got=len(files)
            )
        quarter = len(files) // 4
        _copy(files[:quarter], target / "train" / folder.name)
        _copy(files[quarter:-quarter], target / "stream" / folder.name)
        _copy(files[-quarter:], target / "gold" / folder.name)
    return target


def _chosen(folder: Path, count: int | None, seed: int) -> list[Path]:
    files = photo_files(folder)
    random.Random(f"{seed} {folder.name}").shuffle(files)  # noqa: S311  # a choice of photos is no secret
    return files[:count]


def _copy(files: list[Path], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copyfile(file, folder / file.name)
