"""Recognise the format of what is to be imported, and read its entries."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from cloud.dataset.importing.entry import Entry, Item, files_in, is_file
from cloud.dataset.importing.folder import check_class_names, folder_entries, split_of
from cloud.dataset.importing.importer import check_any
from cloud.dataset.importing.lists import lists_in, why_no_lists
from cloud.dataset.importing.read_annotations import cvat_entries, json_entries
from cloud.dataset.importing.read_parquet import parquet_entries
from cloud.dataset.importing.read_table import csv_entries, metadata_entries, metadata_tables
from cloud.dataset.importing.read_video import VIDEO_SUFFIXES, VideoOptions, is_stream, video_entries
from cloud.progress import Progress
from schemas.errors import PermanentError
from schemas.text import escaped

_Reader: TypeAlias = Callable[[Path, str | None], list[Entry]]

_BY_SUFFIX: dict[str, _Reader] = {
    ".csv": csv_entries,
    ".tsv": csv_entries,
    ".json": json_entries,
    ".xml": cvat_entries,
    ".parquet": parquet_entries,
}
_ARCHIVES = frozenset({".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"})


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How to read a source.

    Attributes:
        label: Class of all pictures; None to take it from the source.
        recursive: Include folders inside class folders.
        every_s: Seconds between two frames of a video.
        max_frames: Most frames of a video.
    """

    label: str | None = None
    recursive: bool = False
    every_s: float = 1.0
    max_frames: int = 1000


@contextmanager
def source_entries(
    source: str, options: SourceOptions, progress: Progress | None = None
) -> Iterator[list[Entry]]:
    """List the entries of a source for the length of a block, in which their pictures can be read.

    Args:
        source: Path of a folder or file, or the URL of a stream.
        options: How to read it.
        progress: Advances by frames of a video.

    Raises:
        PermanentError: It does not exist, has an unknown format, or has no picture.
    """
    path, streamed = Path(source), is_stream(source)
    if not streamed and not path.exists():
        raise PermanentError(f"{escaped(source)}: no such folder or file")
    with tempfile.TemporaryDirectory(prefix="gleaner-frames-") as folder:
        if streamed or path.suffix.lower() in VIDEO_SUFFIXES:
            sampling = VideoOptions(options.label, options.every_s, options.max_frames)
            entries = video_entries(source, Path(folder), sampling, progress)
        elif path.is_dir():
            entries = _directory_entries(path, options)
        else:
            entries = _file_entries(path, options.label)
        check_any(source, entries)
        yield entries


def _directory_entries(directory: Path, options: SourceOptions) -> list[Entry]:
    """List a folder: by the list of pictures in it if it has one, else by its sub-folders."""
    if tables := metadata_tables(directory):
        return metadata_entries(directory, tables, options.label)
    if listed := lists_in(directory, options.label):
        return listed
    if files_in(directory, "*.parquet", "data/*.parquet"):
        return parquet_entries(directory, options.label)
    if any(map(_has_boxes, [directory, *(path for path in directory.glob("*") if split_of(path.name))])):
        raise PermanentError(
            f"{directory} has boxes for YOLO: Gleaner labels whole pictures",
            hint="export it as COCO, or as YOLO classification with a folder per class",
        )
    entries = folder_entries(directory, label=options.label, recursive=options.recursive)
    if options.label is None:
        labels = (entry.label for entry in entries if isinstance(entry, Item))
        check_class_names(directory, labels, why_no_lists(directory))
    return entries


def _has_boxes(folder: Path) -> bool:
    """Return whether a folder has the layout of YOLO with boxes."""
    return (folder / "images").is_dir() and any((folder / "labels").rglob("*.txt"))


def _file_entries(path: Path, label: str | None) -> list[Entry]:
    if not is_file(path):
        raise PermanentError(f"{escaped(path)}: neither a folder nor a regular file")
    suffix = path.suffix.lower()
    if suffix in _ARCHIVES:
        raise PermanentError(f"{escaped(path)} is an archive", hint="unpack it, and import the folder")
    if suffix not in _BY_SUFFIX:
        known = ", ".join([*_BY_SUFFIX, *sorted(VIDEO_SUFFIXES)])
        raise PermanentError(f"{escaped(path)}: not a folder", hint=f"files may be {known}")
    return _BY_SUFFIX[suffix](path, label)
