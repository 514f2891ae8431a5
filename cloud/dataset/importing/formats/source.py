"""Recognise the format of a source to import, and read its entries."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from cloud.dataset.importing.entry import (
    READ_ARCHIVES,
    VIDEO_SUFFIXES,
    Entry,
    Item,
    PassedOver,
    files_in,
    is_archive,
    is_file,
)
from cloud.dataset.importing.formats.archive import archive_in, opened_archive
from cloud.dataset.importing.formats.class_names import named_classes
from cloud.dataset.importing.formats.folder import check_class_names, folder_entries, split_of
from cloud.dataset.importing.formats.lists import lists_in, why_no_lists
from cloud.dataset.importing.formats.read_annotations import cvat_entries, json_entries
from cloud.dataset.importing.formats.read_parquet import parquet_entries
from cloud.dataset.importing.formats.read_table import csv_entries, metadata_entries, metadata_tables
from cloud.dataset.importing.formats.read_video import VideoOptions, is_stream, video_entries
from cloud.dataset.importing.importer import check_any
from cloud.progress import Progress
from schemas.errors import PermanentError
from schemas.text import escaped, without_secrets

_Reader: TypeAlias = Callable[[Path, str | None], list[Entry]]

_BY_SUFFIX: dict[str, _Reader] = {
    ".csv": csv_entries,
    ".tsv": csv_entries,
    ".json": json_entries,
    ".xml": cvat_entries,
    ".parquet": parquet_entries,
}


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How to read a source.

    Attributes:
        label: Class of all pictures; None to take it from the source.
        recursive: Include folders inside class folders.
        every_s: Seconds between two frames of a video.
        max_frames: Most frames of a video.
        name_encoding: Of names in an archive that do not say theirs; None if it is not known.
    """

    label: str | None = None
    recursive: bool = False
    every_s: float = 1.0
    max_frames: int = 1000
    name_encoding: str | None = None


@contextmanager
def source_entries(
    source: str, options: SourceOptions, progress: Progress | None = None
) -> Iterator[list[Entry]]:
    """List the entries of a source for the length of a block, in which their pictures can be read.

    Args:
        source: Path of a folder or file, of a folder or file in an archive, or the URL of a stream.
        options: How to read it.
        progress: Advances by frames of a video, or as an archive is listed.

    Raises:
        PermanentError: It does not exist, has an unknown format, or has no picture.
    """
    path, streamed = Path(source), is_stream(source)
    if streamed and is_archive(source.partition("?")[0]):
        raise PermanentError(
            f"{escaped(without_secrets(source))} is an archive", hint="download it, and import the file"
        )
    archive = None if streamed else archive_in(path)
    if not streamed and archive is None and not path.exists():
        raise PermanentError(f"{escaped(source)}: no such folder or file")
    with ExitStack() as stack:
        if archive is not None:
            entries = _archive_entries(*archive, options, stack, progress)
        elif streamed or path.suffix.lower() in VIDEO_SUFFIXES:
            sampling = VideoOptions(options.label, options.every_s, options.max_frames)
            entries = video_entries(source, _scratch(stack), sampling, progress)
        else:
            entries = _entries(path, options)
        check_any(source, entries)
        yield entries


def _scratch(stack: ExitStack) -> Path:
    """Return an empty folder that is removed with the stack."""
    try:
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gleaner-import-")))
    except OSError as error:
        raise PermanentError(
            f"cannot make a temporary folder: {error.strerror}", hint="set TMPDIR to a folder with space"
        ) from None


def _archive_entries(
    path: Path, inside: PurePosixPath, options: SourceOptions, stack: ExitStack, progress: Progress | None
) -> list[Entry]:
    archive = stack.enter_context(opened_archive(path, _scratch(stack), options.name_encoding, progress))
    start = archive.start(inside, labelled=options.label is not None)
    try:
        found = _entries(start, options)
    except PermanentError as error:
        raise archive.renamed(error) from None
    return archive.entries(found)


def _entries(path: Path, options: SourceOptions) -> list[Entry]:
    is_folder = path.is_dir()
    entries = _directory_entries(path, options) if is_folder else _file_entries(path, options.label)
    if options.label is not None:
        return entries
    return named_classes(path if is_folder else path.parent, entries)


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
            hint="export it as COCO (from Label Studio as JSON), or as YOLO classification with a folder per "
            "class",
        )
    entries = folder_entries(directory, label=options.label, recursive=options.recursive)
    if options.label is None:
        labels = [entry.label for entry in entries if isinstance(entry, Item)]
        lists = why_no_lists(directory)
        check_class_names(directory, labels, lists)
        loose = any(
            isinstance(entry, PassedOver) and "in no class folder" in entry.reason for entry in entries
        )
        if lists and loose and not labels:
            because = "; ".join(lists)
            raise PermanentError(
                f"cannot import {directory}: no class folder with photos, and no list of them ({because})",
                hint="make a folder per class, or write a CSV file with the columns file and label",
            )
    return entries


def _has_boxes(folder: Path) -> bool:
    """Return whether a folder has the layout of YOLO with boxes."""
    return (folder / "images").is_dir() and any((folder / "labels").rglob("*.txt"))


def _file_entries(path: Path, label: str | None) -> list[Entry]:
    if not is_file(path):
        raise PermanentError(f"{escaped(path)}: neither a folder nor a regular file")
    suffix = path.suffix.lower()
    if is_archive(path.name):
        raise PermanentError(
            f"{escaped(path)} is an archive inside another one", hint="unpack that, and import this one"
        )
    if suffix not in _BY_SUFFIX:
        known = ", ".join([*_BY_SUFFIX, *READ_ARCHIVES, *sorted(VIDEO_SUFFIXES)])
        raise PermanentError(f"{escaped(path)}: not a folder", hint=f"files may be {known}")
    return _BY_SUFFIX[suffix](path, label)
