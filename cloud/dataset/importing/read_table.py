"""Read lists of pictures with labels: CSV, and Hugging Face's metadata.jsonl and metadata.csv."""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from cloud.dataset.importing.entry import Entry, PassedOver, file_item
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
        written = _first(row, SPLIT_COLUMNS)
        yield file_item(
            table.parent / name,
            str(prefix / name),
            _first(row, LABEL_COLUMNS) or label,
            split if written is None else split_of(written),
        )


def _first(row: Mapping[str, object], columns: tuple[str, ...]) -> str | None:
    """Return the first value that is there; column names differ in case."""
    named = {key.strip().casefold(): value for key, value in row.items() if isinstance(key, str)}
    values = (named[column] for column in columns if column in named)
    return next((str(value) for value in values if value not in (None, "")), None)


def _csv_rows(table: Path) -> Iterator[tuple[int, Mapping[str, object] | str]]:
    try:
        # A byte-order mark is no part of the first name; a file name may be any bytes.
        with table.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
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
            for row in rows:
                yield rows.line_num, row
    except (csv.Error, OSError) as error:
        raise PermanentError(f"cannot import {table}: {error}") from None


def _json_rows(table: Path) -> Iterator[tuple[int, Mapping[str, object] | str]]:
    with table.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                yield number, f"no JSON: {error}"
                continue
            yield number, row if isinstance(row, dict) else "no JSON object"
