"""The photos of a run: synthetic ones, or those of a folder."""

import hashlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cloud.dataset.importing.entry import Item
from cloud.dataset.importing.formats.read_table import csv_entries
from demo.synthetic import LOOKS, draw_collection
from device.cameras.replay import photo_files
from schemas.class_names import class_name
from schemas.errors import PermanentError

SPLITS = ("train", "gold", "stream")
_NAMES = {
    "train": ("train", "training", "training_set"),
    "gold": ("gold", "test", "testing", "test_set", "val", "valid", "validation"),
    "stream": ("stream",),
}
"""Names of a split's folder in lower case, the first one that is there."""
LABELLED_PER_CLASS = 5
DRAWN = {"train": 10, "gold": 200, "stream": 300}
_MIN_PER_CLASS = {"train": LABELLED_PER_CLASS, "gold": 5, "stream": 10}
_MAX_PHOTOS = {"gold": 400, "stream": 800}
"""Limits for a folder without splits, so that a large one does not take hours."""
_LAYOUT = (
    "one folder per class, train/ and test/ (or train/, stream/ and gold/) with such folders,"
    " or a manifest.csv with path and label"
)
_MANIFEST = "manifest.csv"

Classes = Mapping[str, list[Path]]


@dataclass(frozen=True, slots=True)
class Collection:
    """The photos of a run, in one folder per split and class.

    Args:
        root: Parent folder of `train/`, `gold/` and `stream/`.
        counts: Number of photos by split.
        duplicates: Number of photos that were left out because their content is present already.
        left_out: Number of photos of each class that has too few.
    """

    root: Path
    counts: Mapping[str, int]
    duplicates: int
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def labelled(self) -> Path:
        """The photos that are labelled from the start."""
        return self.root / "train"

    @property
    def gold(self) -> Path:
        """The photos for evaluation, which are never trained on."""
        return self.root / "gold"

    @property
    def stream(self) -> Path:
        """The photos that the cameras take."""
        return self.root / "stream"


def draw(directory: Path, seed: int) -> Iterator[Path]:
    """Draw cats and dogs with the looks of four cameras; yield the path of each photo."""
    return draw_collection(directory, counts=DRAWN, looks=list(LOOKS.values()), seed=seed)


def collect(source: Path, target: Path, seed: int) -> Collection:
    """Choose the photos of a run from a folder, and create symbolic links to them below `target`.

    Args:
        source: One folder per class, or `train/` and `test/` with such folders, or `train/`, `stream/` and
            `gold/`; or any folder with a `manifest.csv` that has the columns `path` and `label`.
        target: A folder of this run.
        seed: Seed of the split and of the choice.

    Raises:
        PermanentError: The folder has another layout, too few photos, or a photo that cannot be read.
    """
    splits, left_out = _splits(source, seed)
    _check_sizes(source, splits)
    counts, contents, duplicates = dict[str, int](), set[bytes](), 0
    # In the order of SPLITS, so that a photo of both gold and stream stays in gold: the stream is trained on.
    for split in SPLITS:
        chosen = [(name, file) for name, files in splits[split].items() for file in files]
        counts[split] = 0
        for number, (name, file) in enumerate(chosen):
            content = _digest(file)
            if content in contents:
                duplicates += 1
                continue
            contents.add(content)
            counts[split] += 1
            link = target / split / name / f"{number:05d}{file.suffix}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file.resolve())  # absolute: a relative link would break below `target`
    return Collection(target, counts, duplicates, left_out)


def _splits(source: Path, seed: int) -> tuple[dict[str, Classes], dict[str, int]]:
    """Return the files of each split by class, shuffled, and the sizes of classes that are left out.

    Of the training photos only a few are labelled.
    """
    if not source.is_dir():
        raise PermanentError(f"there is no folder {source}")
    found = _split_folders(source)
    if not found:
        manifest = source / _MANIFEST
        return _divide(_listed(manifest, seed) if manifest.is_file() else _by_class(source, seed))
    if "train" not in found or "gold" not in found:
        names = ", ".join(f"{folder.name}/" for folder in found.values())
        raise PermanentError(f"{source} has only {names}", hint=f"use {_LAYOUT}")
    splits = {split: _by_class(folder, seed) for split, folder in found.items()}
    train = splits["train"]
    labelled = {name: files[:LABELLED_PER_CLASS] for name, files in train.items()}
    if "stream" not in found:
        # The cameras send what is not labelled; as many as of a folder without splits.
        limits = {split: limit // len(train) for split, limit in _MAX_PHOTOS.items()}
        splits["gold"] = {name: files[: limits["gold"]] for name, files in splits["gold"].items()}
        splits["stream"] = {
            name: files[LABELLED_PER_CLASS:][: limits["stream"]] for name, files in train.items()
        }
    return {"train": labelled, "gold": splits["gold"], "stream": splits["stream"]}, {}


def _split_folders(source: Path) -> dict[str, Path]:
    folders = {path.name.lower(): path for path in sorted(source.iterdir()) if path.is_dir()}
    found = {split: [folders[name] for name in names if name in folders] for split, names in _NAMES.items()}
    return {split: each[0] for split, each in found.items() if each}


def _by_class(directory: Path, seed: int) -> Classes:
    folders = sorted(path for path in directory.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(folders) < 2:  # noqa: PLR2004  # a choice needs two
        raise PermanentError(
            f"{directory} has {len(folders)} class folders, at least 2 are needed", hint=f"use {_LAYOUT}"
        )
    return _shuffled({folder.name: photo_files(folder) for folder in folders}, seed)


def _listed(manifest: Path, seed: int) -> Classes:
    """Return the files of each class by a manifest, whose folders may be devices or dates; shuffled."""
    classes: dict[str, list[Path]] = {}
    for entry in csv_entries(manifest):
        if isinstance(entry, Item) and entry.label is not None:
            classes.setdefault(_folder_name(entry.label, manifest), []).append(manifest.parent / entry.name)
    if len(classes) < 2:  # noqa: PLR2004  # a choice needs two
        raise PermanentError(
            f"{manifest} lists files of {len(classes)} classes, at least 2 are needed", hint=f"use {_LAYOUT}"
        )
    return _shuffled(dict(sorted(classes.items())), seed)


def _folder_name(label: str, manifest: Path) -> str:
    """Return a label as the name of its class folder; raises PermanentError if it cannot be one."""
    name = class_name(label)
    if "/" in name or name.startswith(".") or "\0" in name:
        raise PermanentError(f"{manifest}: the label {name!r:.80} cannot be the name of a folder")
    return name


def _shuffled(classes: dict[str, list[Path]], seed: int) -> Classes:
    for name, files in classes.items():
        # Seeded per class, so that another class does not change the choice of this one.
        random.Random(f"{seed} {name}").shuffle(files)  # noqa: S311  # a choice of photos is not secret
    return classes


def _divide(classes: Classes) -> tuple[dict[str, Classes], dict[str, int]]:
    """Split the files of each class: a few labelled ones, of the others a third gold and the rest stream.

    A class with too few photos is left out while two others have enough; its size is the second result.
    """
    splits: dict[str, dict[str, list[Path]]] = {split: {} for split in SPLITS}
    needed = sum(_MIN_PER_CLASS.values())
    few = {name: len(files) for name, files in classes.items() if len(files) < needed}
    if few and len(classes) - len(few) < 2:  # noqa: PLR2004  # a choice needs two
        name = next(iter(few))
        raise PermanentError(f"class {name!r} has {few[name]} photos, at least {needed} are needed")
    enough = {name: files for name, files in classes.items() if name not in few}
    for name, files in enough.items():
        splits["train"][name], others = files[:LABELLED_PER_CLASS], files[LABELLED_PER_CLASS:]
        third = len(others) // 3
        splits["gold"][name] = others[:third][: _MAX_PHOTOS["gold"] // len(enough)]
        splits["stream"][name] = others[third:][: _MAX_PHOTOS["stream"] // len(enough)]
    return dict(splits), few


def _check_sizes(source: Path, splits: Mapping[str, Classes]) -> None:
    names = list(splits["train"])
    for split, classes in splits.items():
        if list(classes) != names:
            raise PermanentError(
                f"classes in {source}/{split}",
                expected=f"those of train/: {', '.join(names)}",
                got=", ".join(classes),
            )
        for name, files in classes.items():
            if len(files) < _MIN_PER_CLASS[split]:
                needed = _MIN_PER_CLASS[split]
                raise PermanentError(
                    f"class {name!r} has {len(files)} photos in {split}/, at least {needed} are needed"
                )


def _digest(file: Path) -> bytes:
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "blake2b").digest()
    except OSError as error:
        raise PermanentError(f"cannot read {file}: {error.strerror}") from None
