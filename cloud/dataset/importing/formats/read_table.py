"""Read lists of pictures with labels: CSV, and Hugging Face's metadata.jsonl and metadata.csv.

A CSV file has a column of labels; or one for each class, with 1 for that of the picture and 0 for the others,
as Roboflow's `_classes.csv`.
"""

import codecs
import csv
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple, TextIO, TypeAlias

from cloud.dataset.importing.entry import (
    Entry,
    Item,
    NotAListError,
    PassedOver,
    files_in,
    is_file,
    listed_item,
)
from cloud.dataset.importing.formats.folder import split_of
from cloud.dataset.importing.formats.read_annotations import is_task_address, newest_annotations, task_entry
from cloud.dataset.schema import Split
from cloud.dataset.table_cells import cell_text
from schemas.errors import PermanentError

FILE_COLUMNS = (
    *("file_name", "filename", "file", "path", "filepath", "file_path", "image", "image_path", "image_name"),
    *("image_file", "img", "img_path", "picture", "photo"),
)
LABEL_COLUMNS = (
    *("label", "labels", "class", "class_name", "category", "target", "species"),
    "choice",  # Label Studio's
)
SPLIT_COLUMNS = ("split", "subset", "set", "partition")
METADATA_NAMES = ("metadata.jsonl", "metadata.csv")

_Row: TypeAlias = tuple[int, Mapping[str, object] | str]

_DELIMITERS = ",;\t|"
_SEPARATOR_LINE = "sep="  # the first line of some exports for Excel, which names the delimiter
_ROWS_TO_RECOGNISE = 100
_MARKS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}


class _Marked(NamedTuple):
    """The label of a row with a column for each class: those that are marked."""

    classes: tuple[str, ...]


def csv_entries(table: Path, label: str | None = None) -> list[Entry]:
    """List the pictures of a CSV file with a column of files, and one of labels or one for each class.

    Args:
        table: Text in UTF-8, with a header; commas, semicolons, tabs or bars. Files are relative to its
            folder.
        label: Class of pictures without one.

    Raises:
        NotAListError: It has no header with such columns.
        PermanentError: It cannot be read.
    """
    return _one_label(_entries(table, _csv_rows(table, labelled=label is None), label))


def csv_names_pictures(table: Path) -> bool:
    """Return whether a CSV file has labels, and a column of files of which one of the first exists.

    Raises:
        PermanentError: It cannot be read.
    """

    def is_picture(row: Mapping[str, object]) -> bool:
        name, labelled = _first(row, FILE_COLUMNS), _first(row, LABEL_COLUMNS) is not None
        return labelled and isinstance(name, str) and isinstance(_entry(table, name.strip(), "-", None), Item)

    return _any_row(table, is_picture)


def metadata_tables(directory: Path) -> list[Path]:
    """Return the files that hold a Hugging Face image folder's metadata, also in folders of splits.

    Raises:
        PermanentError: One cannot be read.
    """
    found = (table for name in METADATA_NAMES for table in files_in(directory, f"**/{name}"))
    return [table for table in found if _any_row(table, lambda row: _first(row, FILE_COLUMNS) is not None)]


def _any_row(table: Path, condition: Callable[[Mapping[str, object]], bool]) -> bool:
    """Return whether one of the first rows meets a condition; False for a file without a column of files."""
    try:
        rows = islice(_rows(table), _ROWS_TO_RECOGNISE)
        return any(not isinstance(row, str) and condition(row) for _, row in rows)
    except NotAListError:
        return False


def _rows(table: Path) -> Iterator[tuple[int, Mapping[str, object] | str]]:
    return _json_rows(table) if table.suffix == ".jsonl" else _csv_rows(table)


def metadata_entries(directory: Path, tables: Sequence[Path], label: str | None = None) -> list[Entry]:
    """List the pictures of a Hugging Face image folder by its metadata files.

    Raises:
        PermanentError: A metadata file cannot be read.
    """
    found: list[Entry] = []
    for table in tables:
        split = split_of(table.parent.name) if table.parent != directory else None
        prefix = table.parent.relative_to(directory)
        found += _one_label(_entries(table, _rows(table), label, split=split, prefix=prefix))
    return found


def _entries(
    table: Path,
    rows: Iterator[tuple[int, Mapping[str, object] | str]],
    label: str | None,
    *,
    split: Split | None = None,
    prefix: Path = Path(),
) -> Iterator[Entry]:
    read = _newest(rows)
    named = (_first(row, SPLIT_COLUMNS) for _, row in read if not isinstance(row, str))
    known = any(split_of(str(one)) is not None for one in named if one is not None)
    for number, row in read:
        if isinstance(row, str):
            yield PassedOver(f"{table.name}:{number}", row)
            continue
        name = _first(row, FILE_COLUMNS)
        if name is None:
            yield PassedOver(f"{table.name}:{number}", "no file name")
            continue
        if not isinstance(name, str):
            yield PassedOver(f"{table.name}:{number}", "a file name that is not text")
            continue
        # A blank at the end of a field belongs to the table, unless a file has that name.
        name = name if is_file(table.parent / name) else name.strip()
        given, written = _first(row, LABEL_COLUMNS), _first(row, SPLIT_COLUMNS)
        given = cell_text(given) if isinstance(given, str) else given
        if isinstance(given, _Marked):
            if len(given.classes) > 1:
                yield PassedOver(name, f"{len(given.classes)} labels: {', '.join(given.classes)}")
                continue
            given = next(iter(given.classes), None)
        try:
            side = known_split(written, known=known) or split
        except PermanentError as error:
            yield PassedOver(name, str(error))
            continue
        found = _entry(table, name, label if given is None else given, side)
        yield found if prefix == Path() else replace(found, name=str(prefix / name))


def _newest(rows: Iterable[_Row]) -> list[_Row]:
    """Return the rows; of a picture that Label Studio lists once per annotation the newest."""
    listed = list(rows)
    kept = {id(row) for row in newest_annotations(row for _, row in listed)}
    return [(number, row) for number, row in listed if id(row) in kept]


def _entry(table: Path, name: str, label: object, split: Split | None) -> Entry:
    if not is_task_address(name) or not isinstance(label, str | None):
        return listed_item(table.parent, name, label, split)
    found = replace(task_entry(table, name, label), name=name)
    return replace(found, split=split) if isinstance(found, Item) else found


def _first(row: Mapping[str, object], columns: tuple[str, ...]) -> object:
    """Return the first value that is there; column names differ in case."""
    named = {_column(key): value for key, value in row.items() if isinstance(key, str)}
    values = (named[column] for column in columns if column in named)
    return next((value for value in values if value not in (None, "")), None)


def _column(name: str) -> str:
    """Return the name of a column as it is compared: `Image Path` is `image_path`."""
    return re.sub(r"[\s-]+", "_", name.strip().casefold())


def _one_label(entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries, each picture once: a list of boxes has a line for each, perhaps of two classes."""
    labels: defaultdict[str, set[str | None]] = defaultdict(set)
    listed = list(entries)
    for entry in listed:
        if isinstance(entry, Item):
            labels[entry.name].add(entry.label)
    found: dict[str, Entry] = {}
    for number, entry in enumerate(listed):
        given = labels.get(entry.name, set())
        if isinstance(entry, Item) and len(given) > 1:
            names = ", ".join(sorted(str(one) for one in given))
            found[entry.name] = PassedOver(entry.name, f"{len(given)} labels: {names}")
        elif isinstance(entry, Item):
            found.setdefault(entry.name, entry)
        else:
            found[f"{number}/{entry.name}"] = entry
    return list(found.values())


def known_split(written: object, *, known: bool) -> Split | None:
    """Return the split that a row names.

    Args:
        written: Value of the column of splits; None if the row has none.
        known: Whether one of the column's values is a split; else it is about something else.

    Raises:
        PermanentError: The column is one of splits, and this is not the name of a split.
    """
    if written is None or not known:
        return None
    if (split := split_of(str(written))) is None:
        raise PermanentError(f"split {str(written)!r} is unknown; write train, val or test")
    return split


def _csv_rows(table: Path, *, labelled: bool = False) -> Iterator[tuple[int, Mapping[str, object] | str]]:
    try:
        with _open(table) as file:
            rows = csv.DictReader(file, delimiter=_delimiter(file))
            names = {_column(str(name)) for name in rows.fieldnames or ()}
            read = _readable_rows(rows)
            if names.intersection(FILE_COLUMNS) and not names.intersection(LABEL_COLUMNS):
                first = list(islice(read, _ROWS_TO_RECOGNISE))
                read = chain(first, read)
                if classes := _class_columns(first, rows.fieldnames or ()):
                    yield from ((number, _with_label(row, classes)) for number, row in read)
                    return
            columns = {"files": FILE_COLUMNS} | ({"labels": LABEL_COLUMNS} if labelled else {})
            for what, known in columns.items():
                if not names.intersection(known):
                    raise NotAListError(
                        f"cannot import {table}: its first line has no column for {what}",
                        hint=f"name columns {FILE_COLUMNS[0]} and {LABEL_COLUMNS[0]}, for example",
                    )
            yield from read
    except (csv.Error, OSError) as error:
        raise PermanentError(f"cannot import {table}: {error}") from None


def _class_columns(first: Iterable[_Row], names: Iterable[str]) -> list[str]:
    """Return the columns of a table without labels that are classes; none if it has no such columns.

    They have 0 and 1 alone, and most rows one 1: otherwise they are properties, such as `blurred`.

    Args:
        first: The first rows.
        names: Of all columns.
    """
    rows = [row for _, row in first if not isinstance(row, str)]
    columns = [
        name
        for name in names
        if _column(name) not in {*FILE_COLUMNS, *SPLIT_COLUMNS, ""}
        and all(_mark(row.get(name)) is not None for row in rows)
    ]
    single = sum(sum(_mark(row[name]) is True for name in columns) == 1 for row in rows)
    return columns if len(columns) > 1 and single > len(rows) / 2 else []


def _with_label(row: Mapping[str, object] | str, classes: Sequence[str]) -> Mapping[str, object] | str:
    """Return a row with a label in place of a column for each class."""
    if isinstance(row, str):
        return row
    marks = {name: _mark(row.get(name)) for name in classes}
    if unread := [name for name, mark in marks.items() if mark is None]:
        return f"column {unread[0].strip()!r} is neither 0 nor 1"
    marked = tuple(cell_text(name.strip()) for name, mark in marks.items() if mark)
    others = {name: value for name, value in row.items() if name not in marks}
    return {**others, LABEL_COLUMNS[0]: _Marked(marked)}


def _mark(cell: object) -> bool | None:
    """Return what a cell of a class's column says, also as 1.0; None if it is no such cell."""
    return _MARKS.get(cell.strip().casefold()) if isinstance(cell, str) else None


def _delimiter(file: TextIO) -> str:
    """Return the delimiter of a CSV file, and leave it at its header."""
    first = file.readline(4096)
    if first.casefold().startswith(_SEPARATOR_LINE):
        return first[len(_SEPARATOR_LINE) :].strip('\r\n"')[:1] or ","
    file.seek(0)
    return max(_DELIMITERS, key=first.count)


def _readable_rows(rows: "csv.DictReader[str]") -> Iterator[tuple[int, Mapping[str, object] | str]]:
    """Yield each row, or why it cannot be read; the other rows are unaffected."""
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:  # a field that is too long
            yield rows.line_num, str(error)
            continue
        yield rows.line_num, row


def _json_rows(table: Path) -> Iterator[tuple[int, Mapping[str, object] | str]]:
    with _open(table) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, f"no JSON: {error}"
                continue
            yield number, row if isinstance(row, dict) else "no JSON object"


def _open(table: Path) -> TextIO:
    """Open a text in UTF-8, or in UTF-16 as Windows' programs write it; raises PermanentError."""
    try:
        with table.open("rb") as file:
            is_wide = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        # A byte-order mark does not belong to the first name; a file name may be any bytes.
        encoding, errors = ("utf-16", "replace") if is_wide else ("utf-8-sig", "surrogateescape")
        return table.open(encoding=encoding, errors=errors, newline="")
    except OSError as error:
        raise PermanentError(f"cannot import {table}: {error.strerror}") from None
