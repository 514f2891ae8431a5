"""Read Parquet files as Hugging Face writes them: a picture and a label per row."""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cloud.dataset.importing.entry import Entry, Item, PassedOver, files_in, listed_item
from cloud.dataset.importing.formats.folder import split_of
from cloud.dataset.importing.formats.read_table import LABEL_COLUMNS, SPLIT_COLUMNS, known_split
from schemas.errors import PermanentError
from schemas.text import escaped

_IMAGE_COLUMNS = ("image", "img", "photo", "picture")


def parquet_entries(source: Path, label: str | None = None) -> list[Entry]:
    """List the pictures of a Parquet file, or of all below a folder; the split is in a column or file name.

    Args:
        source: File or folder. Pictures are read from it one by one, when they are imported.
        label: Class of rows without one.

    Raises:
        PermanentError: A file is not Parquet, or has no column with encoded pictures.
    """
    files = [source] if source.is_file() else files_in(source, "**/*.parquet")
    base = source.parent if source.is_file() else source
    return [entry for path in files for entry in _file_entries(path, str(path.relative_to(base)), label)]


def _file_entries(path: Path, name: str, label: str | None) -> Iterator[Entry]:
    try:
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
        image, labels, splits = (
            _column(schema, names) for names in (_IMAGE_COLUMNS, LABEL_COLUMNS, SPLIT_COLUMNS)
        )
        labels = labels or _only_classes(path, schema, label)
        if image is None:
            raise PermanentError(
                f"cannot import {path}: no column {' or '.join(_IMAGE_COLUMNS)} with encoded pictures"
            )
        classes = _class_names(schema, labels)
        stem_split = split_of(path.stem.partition("-")[0])
        columns = [column for column in (labels, splits) if column is not None]
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group, columns=columns).to_pylist()
            count = file.metadata.row_group(group).num_rows
            for row, values in enumerate(rows or [{}] * count):
                entry = f"{name}:{group}.{row}"
                read: Callable[[], bytes] = partial(_picture, path, group, row, image)
                try:
                    split = known_split(values.get(splits) if splits else None, known=True) or stem_split
                    given = _label(values.get(labels) if labels else None, classes) or label
                except PermanentError as error:
                    yield PassedOver(entry, str(error))
                    continue
                yield Item(entry, read, given, split) if given else PassedOver(entry, "no label")
    except (pa.ArrowException, OSError) as error:
        raise PermanentError(f"cannot import {path}: {error}") from None


def _picture(path: Path, group: int, row: int, column: str) -> bytes:
    try:
        pictures = _row_group(path, group, column)
    except pa.ArrowException as error:
        raise PermanentError(f"a damaged row: {error}") from None
    value: object = pictures[row].as_py()
    content: object = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(content, bytes):
        return content
    if isinstance(value, dict) and isinstance(value.get("path"), str):
        found = listed_item(path.parent, value["path"], None)  # no device, which could be read without end
        if isinstance(found, PassedOver):
            raise PermanentError(f"{value['path']}: {found.reason}")
        return found.read()
    raise PermanentError("no encoded picture in this row")


@lru_cache(maxsize=1)  # one row group in memory for any number of entries
def _row_group(path: Path, group: int, column: str) -> pa.ChunkedArray:
    return pq.ParquetFile(path).read_row_group(group, columns=[column]).column(column)


def _column(schema: pa.Schema, names: Sequence[str]) -> str | None:
    by_name = {field.name.casefold(): field.name for field in schema}
    return next((by_name[name] for name in names if name in by_name), None)


def _only_classes(path: Path, schema: pa.Schema, label: str | None) -> str | None:
    """Return the only column with numbered classes; its name does not matter.

    Raises:
        PermanentError: There are several, and no label is given.
    """
    found = [field.name for field in schema if _class_names(schema, field.name)]
    if len(found) > 1 and label is None:
        raise PermanentError(
            f"cannot import {path}: columns {' and '.join(map(escaped, found))} have classes",
            hint="rename the one to learn to label",
        )
    return found[0] if len(found) == 1 else None


def _class_names(schema: pa.Schema, column: str | None) -> list[str]:
    """Return the names behind numbered labels, which Hugging Face stores in the metadata; or none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return [str(name) for name in features[column]["names"]]
    except (KeyError, TypeError, ValueError, RecursionError):
        return []


def _label(value: object, classes: Sequence[str]) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return classes[value] if 0 <= value < len(classes) else (None if classes or value < 0 else str(value))
    if isinstance(value, list):
        found = sorted({label for one in value if (label := _label(one, classes))})
        if len(found) > 1:
            raise PermanentError(f"{len(found)} labels: {', '.join(found)}")
        return found[0] if found else None
    return None if value in (None, "") else str(value)
