"""Read a folder of pictures: one folder per class, with or without folders of splits above them.

Layouts, tried in this order:

    --label cat      DIR/1.jpg                   every picture is a cat
    splits           DIR/train/cat/1.jpg         train, val, test, gold … with a folder per class in each
                     DIR/train/cat.1.jpg         the same with the class in the file names, as from Kaggle
    names            DIR/cat.1.jpg               no folders: the class is in the file names
    classes          DIR/cat/1.jpg               one folder per class
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from cloud.dataset.importing.entry import (
    VIDEO_SUFFIXES,
    Entry,
    Item,
    PassedOver,
    file_item,
    is_archive,
    is_file,
    looks_like_picture,
)
from cloud.dataset.schema import Split
from schemas.errors import PermanentError
from schemas.text import escaped, listed

_SPLITS: dict[str, Split] = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    # Pictures for measuring, under the names that other tools use: no training sees them.
    **dict.fromkeys(("gold", "val", "valid", "validation", "dev", "test", "testing", "eval"), "gold"),
    **dict.fromkeys(("holdout", "heldout"), "gold"),
    "stream": "stream",
}
_DECORATION = re.compile(r"^\d+[\s_-]+|[\s_-]|(set|split|images|photos|data)?\d*$")
_CLASS_IN_NAME = re.compile(r"([^\W\d][^.]*)[._]\d+\.[A-Za-z]+")
_CONTAINERS = frozenset(
    {
        *("image", "images", "img", "imgs", "jpegimages", "photo", "photos", "picture", "pictures", "pics"),
        *("data", "dataset", "datasets", "file", "files", "frame", "frames", "media", "upload", "uploads"),
        *("annotation", "annotations", "label", "labels", "mask", "masks", "segmentations", "thumbnails"),
    }
)
"""Names of folders that cannot be class names, such as that of a camera's storage."""
# Those of folders, of Windows, Linux, Synology and QNAP: some hold small copies of the pictures next to them.
_SYSTEM_FILES = frozenset(
    {
        *("thumbs.db", "desktop.ini", "__macosx", "$recycle.bin", "recycler", "system volume information"),
        *("lost+found", "@eadir", "#recycle", "#snapshot", "@recycle", "@__thumb", "@recently-snapshot"),
    }
)


def split_of(folder: str) -> Split | None:
    """Return the split that a folder's name means, such as gold for `test1` or `validation_set`; or None."""
    return _SPLITS.get(_DECORATION.sub("", folder.casefold()))


def folder_entries(directory: Path, *, label: str | None = None, recursive: bool = False) -> list[Entry]:
    """List the pictures of a folder with their labels, and everything that is skipped.

    Args:
        directory: The folder.
        label: Label of every picture; None to take it from the names of folders or files.
        recursive: Include folders inside a class folder.

    Raises:
        PermanentError: The folder has splits without classes, or it is not clear which folders are classes.
    """
    listing = _Listing(directory, recursive=recursive)
    if label is not None:
        return list(listing.pictures(directory, label))
    splits = {folder: split for folder in listing.folders(directory) if (split := split_of(folder.name))}
    # `train` next to `bus` and `car` is a class, even if the names of its files look like classes.
    others = [folder for folder in listing.folders(directory) if folder not in splits]
    has_classes = listing.has_class_folders if any(map(listing.has_pictures, others)) else listing.has_classes
    if any(map(has_classes, splits)):
        return list(_splits(directory, splits, listing))
    if splits and len(splits) == len(listing.folders(directory)):
        names = ", ".join(escaped(folder.name) for folder in splits)
        raise PermanentError(
            f"cannot import {directory}: the folders {names} are splits, and no class is named in them",
            hint="make a folder per class in each, such as train/cat/1.jpg; or import one class with --label",
        )
    if not any(listing.has_pictures(folder) for folder in listing.folders(directory)):
        named = list(_named(directory, None, listing))
        if any(isinstance(entry, Item) for entry in named):
            return named
        deeper = [folder for folder in listing.folders(directory) if listing.has_classes(folder)]
        if deeper and not recursive:
            raise PermanentError(
                f"cannot import {directory}: the class folders are one level deeper",
                hint=f"import {', '.join(escaped(folder) for folder in deeper)}",
            )
    inner = _wrapped(directory, listing)
    if inner != directory:
        raise PermanentError(
            f"cannot import {directory}: its class folders are further inside",
            hint=f"import {escaped(inner)}; or all pictures as one class with --label",
        )
    if recursive:
        _check_inner_folders(directory, listing)
    return list(_classes(directory, None, listing))


def check_class_names(directory: Path, labels: Iterable[str | None], lists: Sequence[str] = ()) -> None:
    """Refuse an import by folders whose classes would all be called `images` or the like.

    Args:
        directory: What is imported.
        labels: Of all its pictures.
        lists: Why files of the folder that may be lists of pictures are none.

    Raises:
        PermanentError: No name of a folder is one of a class.
    """
    names = sorted({label for label in labels if label is not None})
    if not names or not all(name.casefold() in _CONTAINERS for name in names):
        return
    is_are = "the name of its folder, is" if len(names) == 1 else "the names of its folders, are"
    because = f" ({'; '.join(lists)})" if lists else ""
    raise PermanentError(
        f"cannot import {directory}: {listed([escaped(name) for name in names])}, {is_are} no class{because}",
        hint="make a folder per class, write a CSV file with the columns file and label, "
        "or name the class of all pictures with --label",
    )


def _wrapped(directory: Path, listing: "_Listing") -> Path:
    """Return the folder inside that has the class folders, if only folders with one folder are around it."""
    here = directory
    while len(folders := listing.folders(here)) == 1 and not listing.has_pictures(folders[0]):
        here = folders[0]
    return here if any(True for _ in listing.folders(here)) else directory


def _check_inner_folders(directory: Path, listing: "_Listing") -> None:
    """Refuse folders of cameras or dates with the same class folders inside each: they are not classes.

    Raises:
        PermanentError: Several folders have pictures only in folders inside, whose names repeat.
    """
    inner = {
        folder: {one.name for one in listing.folders(folder) if listing.has_pictures(one)}
        for folder in listing.folders(directory)
        if not listing.has_pictures(folder)
    }
    repeated = Counter(name for names in inner.values() for name in names)
    common = sorted(name for name, count in repeated.items() if count > 1)
    if len(common) > 1:
        raise PermanentError(
            f"cannot import {directory}: {listed([escaped(name) for name in common])} are folders inside "
            "several folders, so it is not clear which are the classes",
            hint="import each of the outer folders, or write a CSV file with the columns file and label",
        )


def visible_children(folder: Path) -> list[Path]:
    """Return the files and folders of a folder, without hidden ones and those of systems."""
    return [path for path in _children(folder) if not _is_hidden(path)]


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir(), key=lambda path: os.fsencode(path.name))
    except OSError:
        return []


def _no_picture(path: Path, name: str) -> PassedOver:
    """Return the entry of a file that is not a picture. An archive or a video may have some."""
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return PassedOver(name, "a video; import it on its own with --label to sample its frames")
    if is_archive(path.name):
        return PassedOver(name, "an archive; unpack it, or import it on its own")
    return PassedOver(name, "not a picture", expected=True)


class _Listing:
    """Reads folders; names are relative to the imported folder."""

    def __init__(self, root: Path, *, recursive: bool) -> None:
        self._root = root
        self._recursive = recursive

    def name(self, path: Path) -> str:
        return str(path.relative_to(self._root))

    def children(self, folder: Path) -> list[Path]:
        return _children(folder)

    def folders(self, folder: Path) -> list[Path]:
        return [path for path in self.children(folder) if _is_folder(path) and not _is_hidden(path)]

    def has_pictures(self, folder: Path) -> bool:
        return any(
            not _is_hidden(path) and is_file(path) and looks_like_picture(path)
            for path in self.children(folder)
        )

    def has_class_folders(self, split: Path) -> bool:
        """Return whether a split has class folders."""
        return any(map(self.has_pictures, self.folders(split)))

    def has_classes(self, split: Path) -> bool:
        """Return whether a split has class folders, or files that name their class."""
        return self.has_class_folders(split) or len(_classes_in_names(self.children(split))) > 1

    def pictures(self, folder: Path, label: str | None, split: Split | None = None) -> Iterator[Entry]:
        """Yield the entries of one class folder, its own files before those of folders inside it."""
        waiting = [folder]
        while waiting:  # no recursion: folders can be nested more deeply than calls
            inner: list[Path] = []
            yield from self._pictures_in(waiting.pop(), label, split, inner)
            waiting += reversed(inner)

    def _pictures_in(
        self, folder: Path, label: str | None, split: Split | None, inner: list[Path]
    ) -> Iterator[Entry]:
        """Yield the entries of one folder; append the folders inside that are to be read too."""
        if not os.access(folder, os.R_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            yield PassedOver(self.name(folder), "a folder that cannot be read")
            return
        for path in self.children(folder):
            if _is_hidden(path):
                yield PassedOver(self.name(path), "hidden or a system's own", expected=True)
            elif not _is_folder(path):
                yield self._file(path, label, split)
            elif path.is_symlink():
                yield PassedOver(f"{self.name(path)}/", "a link to a folder; such links are not followed")
            elif self._recursive:
                inner.append(path)
            else:
                yield self.passed_over(path, "a folder inside a class folder; add --recursive to import it")

    def _file(self, path: Path, label: str | None, split: Split | None) -> Entry:
        if path.is_symlink() or not is_file(path) or looks_like_picture(path):
            return file_item(path, self.name(path), label, split)
        return _no_picture(path, self.name(path))

    def passed_over(self, folder: Path, reason: str) -> PassedOver:
        """Return the entry of a folder that is not imported, with the number of its files."""
        count = sum(len(files) for _, _, files in os.walk(folder))
        files = "1 file" if count == 1 else f"{count} files"
        return PassedOver(f"{self.name(folder)}/", f"{reason}: {files}", expected=count == 0)


def _classes(directory: Path, split: Split | None, listing: _Listing) -> Iterator[Entry]:
    """Yield the entries of a folder of class folders."""
    for path in listing.children(directory):
        name = listing.name(path)
        if _is_hidden(path):
            yield PassedOver(name, "hidden or a system's own", expected=True)
        elif _is_folder(path):
            entries = list(listing.pictures(path, path.name, split))
            yield from entries or [PassedOver(f"{name}/", "an empty folder", expected=True)]
        elif is_file(path) and not looks_like_picture(path):
            yield _no_picture(path, name)
        else:
            yield PassedOver(name, "in no class folder; move it into one, or import with --label")


def _named(directory: Path, split: Split | None, listing: _Listing) -> Iterator[Entry]:
    """Yield the entries of a folder whose files name their class, such as `cat.1.jpg`."""
    several = len(_classes_in_names(listing.children(directory))) > 1
    for entry in listing.pictures(directory, None, split):
        named = _CLASS_IN_NAME.fullmatch(Path(entry.name).name)
        if isinstance(entry, PassedOver):
            yield entry
        elif several and named:
            yield replace(entry, label=named[1])
        else:
            yield PassedOver(entry.name, "no label: in no class folder, and its name has no class")


def _splits(directory: Path, splits: dict[Path, Split], listing: _Listing) -> Iterator[Entry]:
    """Yield the entries of a folder of splits."""
    for path in listing.children(directory):
        if path in splits:
            by_folder = listing.has_class_folders(path)
            yield from (_classes if by_folder else _named)(path, splits[path], listing)
        elif _is_hidden(path):
            yield PassedOver(listing.name(path), "hidden or a system's own", expected=True)
        elif _is_folder(path):
            reason = "beside folders of splits; import it on its own, with --label or as class folders"
            yield listing.passed_over(path, reason)
        elif is_archive(path.name):
            yield _no_picture(path, listing.name(path))
        else:
            yield PassedOver(
                listing.name(path), "beside folders of splits", expected=not looks_like_picture(path)
            )


def _classes_in_names(paths: list[Path]) -> set[str]:
    found = (_CLASS_IN_NAME.fullmatch(path.name) for path in paths if not _is_hidden(path))
    return {match[1].casefold() for match in found if match}


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name.casefold() in _SYSTEM_FILES


def _is_folder(path: Path) -> bool:
    """Return True for a folder; False also for a path that cannot be examined, as with too long a name."""
    try:
        return path.is_dir()
    except OSError:
        return False
