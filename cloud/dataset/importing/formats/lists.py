"""Find the lists of pictures in a folder, among files that are something else."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from cloud.dataset.importing.entry import Entry, Item, NotAListError, PassedOver, files_in
from cloud.dataset.importing.formats.folder import split_of
from cloud.dataset.importing.formats.read_annotations import coco_split, cvat_entries, json_entries
from cloud.dataset.importing.formats.read_table import csv_entries, csv_names_pictures
from cloud.dataset.schema import Split
from schemas.errors import PermanentError
from schemas.text import escaped

_TABLES = ("*.csv", "*.tsv")


def lists_in(directory: Path, label: str | None) -> list[Entry]:
    """Return the entries of the lists of pictures in a folder; none if it has no list.

    A folder may have several lists of one kind if each is named after a split. A JSON or CSV file that is no
    list, such as names of classes, does not make the folder unusable.

    Args:
        directory: The folder.
        label: Class of pictures without one.

    Raises:
        PermanentError: It has several lists that may contradict each other, or one cannot be read.
    """
    return _lists_of(directory, label) or _lists_of_splits(directory, label)


def why_no_lists(directory: Path) -> list[str]:
    """Return why each file that may be a list of pictures is none, for the error about its folder."""
    reasons = []
    for path in files_in(directory, "*.json", *_TABLES):
        try:
            (json_entries if path.suffix == ".json" else csv_entries)(path, None)
        except PermanentError as error:
            reasons.append(f"{escaped(path.name)}: {str(error).partition(': ')[2] or error}")
        else:
            reasons.append(f"{escaped(path.name)}: none of the pictures that it lists is there")
    return reasons


def _lists_of(directory: Path, label: str | None) -> list[Entry]:
    return (
        _only(directory, _exports(directory, "annotations.xml", cvat_entries, label), lambda _: None)
        or _only(directory, _exports(directory, "*.json", json_entries, label), coco_split)
        or _only(directory, _tables(directory, label), lambda table: split_of(table.stem))
    )


def _lists_of_splits(directory: Path, label: str | None) -> list[Entry]:
    """Return the entries of the lists in folders of splits, as Roboflow exports them; none without a list."""
    splits = [path for path in sorted(directory.glob("*")) if split_of(path.name) and path.is_dir()]
    found = {path: _lists_of(path, label) for path in splits}
    if not any(found.values()):
        return []
    entries: list[Entry] = []
    for path, inside in found.items():
        named = [replace(entry, name=f"{path.name}/{entry.name}") for entry in inside]
        entries += [_in_split(entry, split_of(path.name)) for entry in named]
        if not inside:
            entries.append(PassedOver(f"{path.name}/", "a split without a list of its pictures"))
    return entries


def _exports(
    directory: Path, pattern: str, reader: Callable[[Path, str | None], list[Entry]], label: str | None
) -> Iterator[tuple[Path, list[Entry]]]:
    for path in files_in(directory, pattern, f"annotations/{pattern}"):
        try:
            yield path, reader(path, label)
        except NotAListError:
            continue


def _tables(directory: Path, label: str | None) -> Iterator[tuple[Path, list[Entry]]]:
    for path in files_in(directory, *_TABLES):
        if csv_names_pictures(path):
            yield path, csv_entries(path, label)


def _only(
    directory: Path, lists: Iterator[tuple[Path, list[Entry]]], split_by_name: Callable[[Path], Split | None]
) -> list[Entry]:
    """Return the entries of the only list, or of all if each is named after a split."""
    found = dict(lists)
    if len(found) > 1 and not all(map(split_by_name, found)):
        names = ", ".join(escaped(path.relative_to(directory)) for path in found)
        raise PermanentError(f"{directory} has several lists of pictures: {names}", hint="import one of them")
    counts = Counter(entry.name for entries in found.values() for entry in entries)
    return [
        # Lists of two splits may have pictures of one name, each in the folder of its split.
        _in_split(entry if counts[entry.name] == 1 else _named_by(path, entry), split_by_name(path))
        for path, entries in found.items()
        for entry in entries
    ]


def _named_by(path: Path, entry: Entry) -> Entry:
    return replace(entry, name=f"{path.stem}/{entry.name}")


def _in_split(entry: Entry, split: Split | None) -> Entry:
    """Return an entry in the split that its list is named after, if it names none itself."""
    return replace(entry, split=split) if isinstance(entry, Item) and entry.split is None else entry
