"""Read lists of pictures with labels: CSV, and Hugging Face's metadata.jsonl and metadata.csv."""

import codecs
import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from cloud.dataset.importing.entry import Entry, PassedOver, listed_item
from cloud.dataset.importing.folder import split_of
from cloud.dataset.schema import Split
from schemas.errors import PermanentError

FILE_COLUMNS = ("file_name", "filename", "file", "path", "filepath", "image", "image_path", "photo")
LABEL_COLUMNS = ("label", "labels", "class", "class_name", "category", "target", "species")
SPLIT_COLUMNS = ("split", "subset", "set", "partition")
METADATA_NAMES = ("metadata.jsonl", "metadata.csv")


def csv_entries(table: Path, label: str | None = None) -> list[Entry]:
    """List the pictures of a CSV file with a column of files and one of labels.

    Args:
        table: Text in UTF-8, with a header; commas, semicolons or tabs. Files are relative to its folder.
        label: Class of pictures without one.

    Raises:
        PermanentError: It has no header with such columns, or is no text.
    """
    return list(_entries(table, _csv_rows(table), label))


def metadata_entries(directory: Path, label: str | None = None) -> list[Entry]:
    """List the pictures of a Hugging Face image folder by its metadata files, also in folders of splits.

    Raises:
        PermanentError: A metadata file cannot be read.
    """
    found: list[Entry] = []
    for name in METADATA_NAMES:
        for table in sorted(directory.rglob(name)):
            rows = _json_rows(table) if table.suffix == ".jsonl" else _csv_rows(table)
            split = split_of(table.parent.name) if table.parent != directory else None
            prefix = table.parent.relative_to(directory)
            found += _entries(table, rows, label, split=split, prefix=prefix)
    return found


def _entries(
    table: Path,
    rows: Iterator[tuple[int, Mapping[str, object] | str]],
    label: str | None,
    *,
    split: Split | None = None,
    prefix: Path = Path(),
) -> Iterator[Entry]:
    for number, row in rows:
        if isinstance(row, str):
            yield PassedOver(f"{table.name}:{number}", row)
            continue
        name = _first(row, FILE_COLUMNS)
        if name is None:
            yield PassedOver(f"{table.name}:{number}", "no file name")
            continue
        if not isinstance(name, str):
            yield PassedOver(f"{table.name}:{number}", "a file name that is no text")
            continue
        written = _first(row, SPLIT_COLUMNS)
        found = listed_item(
            table.parent,
            name,
            _first(row, LABEL_COLUMNS) or label,
            split if written is None else split_of(str(written)),
        )
        yield found if prefix == Path() else replace(found, name=str(prefix / name))


def _first(row: Mapping[str, object], columns: tuple[str, ...]) -> object:
    """Return the first value that is there; column names differ in case."""
    named = {key.strip().casefold(): value for key, value in row.items() if isinstance(key, str)}
    values = (named[column] for column in columns if column in named)
    return next((value for value in values if value not in (None, "")), None)


def _csv_rows(table: Path) -> Iterator[tuple[int, Mapping[str, object] | str]]:
    try:
        with _open(table) as file:
            head = file.read(4096)
            file.seek(0)
            delimiter = max(",;\t", key=head.partition("\n")[0].count)
            rows = csv.DictReader(file, delimiter=delimiter)
            names = {str(name).strip().casefold() for name in rows.fieldnames or ()}
            if not names.intersection(FILE_COLUMNS):
                raise PermanentError(
                    f"cannot import {table}: its first line has no column for files",
                    hint=f"name columns {FILE_COLUMNS[0]} and {LABEL_COLUMNS[0]}, for example",
                )
            yield from _readable_rows(rows)
    except (csv.Error, OSError) as error:
        raise PermanentError(f"cannot import {table}: {error}") from None


def _readable_rows(rows: "csv.DictReader[str]") -> Iterator[tuple[int, Mapping[str, object] | str]]:
    """Yield each row, or why it cannot be read: one such row costs itself alone."""
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
        # A byte-order mark is no part of the first name; a file name may be any bytes.
        encoding, errors = ("utf-16", "replace") if is_wide else ("utf-8-sig", "surrogateescape")
        return table.open(encoding=encoding, errors=errors, newline="")
    except OSError as error:
        raise PermanentError(f"cannot import {table}: {error.strerror}") from None
