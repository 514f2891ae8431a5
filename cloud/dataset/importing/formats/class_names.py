"""Name numbered classes by the file of names next to them, such as `classes.txt` beside folders 0 and 1.

Tools write classes as numbers, from 0 or from 1, and their names into a list with one a line, or into a JSON
object with the numbers as keys, or as values (Keras's `class_indices`).
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cloud.dataset.importing.entry import PICTURE_SUFFIXES, Entry, Item, PassedOver, is_file
from schemas.errors import PermanentError
from schemas.text import escaped, listed

_LISTS = ("classes.txt", "labels.txt", "class_names.txt", "names.txt", "obj.names", "classes.names")
_OBJECTS = (
    "classes.json",
    "labels.json",
    "class_names.json",
    "class_indices.json",
    "class_indict.json",
    "cat_to_name.json",
    "class_to_idx.json",
    "idx_to_class.json",
    "label_map.json",
    "id2label.json",
)
CLASS_NAME_FILES = frozenset(_LISTS + _OBJECTS)
"""Files whose names say that they hold names of classes."""

_MAX_BYTES = 1 << 20
_NUMBER = re.compile(r"\d{1,9}", re.ASCII)
_NUMBERED_LINE = re.compile(r"(\d{1,9})\s*[\s:,;=]\s*(\S.*)", re.ASCII)

_Names = Mapping[int, str]


def named_classes(folder: Path, entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries with names in place of numbers, if all labels are numbers and a file names them.

    Args:
        folder: What has the pictures, and perhaps the file.
        entries: Of the pictures.

    Raises:
        PermanentError: A file has names of classes, and it is not clear which number is which.
    """
    labels = {entry.label for entry in entries if isinstance(entry, Item) and entry.label is not None}
    if not labels or not all(map(_NUMBER.fullmatch, labels)):
        return list(entries)
    numbers = {int(label) for label in labels}
    found = {path.name: names for path in _files(folder) if (names := _read(path, numbers)) is not None}
    if not found:
        return list(entries)
    used = {tuple(names.get(number) for number in sorted(numbers)) for names in found.values()}
    files = " and ".join(escaped(name) for name in found)
    if len(used) > 1:
        raise _unclear(folder, f"{files} name them differently", numbers)
    (row,) = used
    if None in row:
        raise _unclear(folder, f"{files} does not tell which name is whose", numbers)
    by_number = dict(zip(sorted(numbers), row, strict=True))
    named = (
        replace(entry, label=by_number[int(entry.label)])
        if isinstance(entry, Item) and entry.label is not None
        else entry
        for entry in entries
    )
    return [entry for entry in named if not (isinstance(entry, PassedOver) and entry.name in found)]


def _unclear(folder: Path, why: str, numbers: set[int]) -> PermanentError:
    shown = listed([str(number) for number in sorted(numbers)])
    return PermanentError(
        f"cannot import {escaped(folder)}: the classes are numbers ({shown}), and {why}",
        hint="write names in place of the numbers; or remove the file to import the numbers as they are",
    )


def _files(folder: Path) -> list[Path]:
    try:
        children = sorted(folder.iterdir())
    except OSError:
        return []
    return [path for path in children if path.name.casefold() in CLASS_NAME_FILES and is_file(path)]


def _read(path: Path, numbers: set[int]) -> _Names | None:
    """Return the names in a file by number; empty if the base is not clear, None if it has no names."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            return None
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None
    if path.suffix.casefold() == ".json":
        return _object_names(text, numbers)
    return _list_names(text, numbers)


def _list_names(text: str, numbers: set[int]) -> _Names | None:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if (numbered := [match.groups() for line in lines if (match := _NUMBERED_LINE.fullmatch(line))]) and (
        len(numbered) == len(lines)
    ):
        return _checked({int(number): name for number, name in numbered}, len(lines))
    return _from_list(lines, numbers)


def _from_list(names: Sequence[str], numbers: set[int]) -> _Names | None:
    """Return names in their order: from 0 or from 1, whichever the numbers tell."""
    if _checked(dict(enumerate(names)), len(names)) is None:
        return None
    if 0 in numbers:
        return dict(enumerate(names))
    return dict(enumerate(names, start=1)) if len(names) in numbers else {}


def _object_names(text: str, numbers: set[int]) -> _Names | None:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(content, list) and all(isinstance(one, str) for one in content):
        return _from_list(content, numbers)
    if not isinstance(content, dict):
        return None
    pairs = [(key, one) for key, one in content.items() if isinstance(one, str)]
    if len(pairs) != len(content):  # names as keys, numbers as values
        pairs = [(str(one), key) for key, one in content.items() if type(one) is int]
    by_number = {int(key): one.strip() for key, one in pairs if _NUMBER.fullmatch(key)}
    return _checked(by_number, len(content))


def _checked(names: _Names, count: int) -> _Names | None:
    """Return names of classes, None if these are something else, such as a list of pictures or of labels."""
    distinct = set(names.values())
    is_names = bool(names) and len(names) == len(distinct) == count and "" not in distinct
    pictures = any(Path(name).suffix.lower() in PICTURE_SUFFIXES for name in distinct)
    return names if is_names and not pictures and not any(map(_NUMBER.fullmatch, distinct)) else None
