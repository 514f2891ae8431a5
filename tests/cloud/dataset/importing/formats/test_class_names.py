"""Rules of cloud/dataset/importing/formats/class_names.py: numbers become names where a file has those."""

import json
import zipfile
from pathlib import Path

import pytest

from cloud.dataset.importing.entry import Item, PassedOver
from cloud.dataset.importing.formats.source import SourceOptions, source_entries
from schemas.errors import PermanentError


def place(folder: Path, *labels: str) -> Path:
    for label in labels:
        (folder / label).mkdir(parents=True, exist_ok=True)
        (folder / label / "1.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


def labels(source: Path) -> list[str | None]:
    with source_entries(str(source), SourceOptions()) as entries:
        return sorted(str(entry.label) for entry in entries if isinstance(entry, Item))


@pytest.mark.parametrize(
    ("numbers", "name", "content"),
    [
        (("0", "1"), "classes.txt", "cat\ndog\n"),
        (("1", "2"), "classes.txt", "cat\ndog\n"),
        (("00", "01"), "Labels.txt", "\ufeffcat\r\ndog\r\n"),
        (("0", "2"), "obj.names", "cat\nbird\ndog\n"),
        (("0", "1"), "labels.txt", "0 cat\n1 dog\n"),
        (("3", "7"), "labels.txt", "7: dog\n3: cat\n"),
        (("21", "102"), "cat_to_name.json", json.dumps({"21": "cat", "102": "dog", "5": "bird"})),
        (("0", "1"), "class_indices.json", json.dumps({"cat": 0, "dog": 1})),
        (("0", "1"), "classes.json", json.dumps(["cat", "dog"])),
    ],
)
def test_numbered_folders_have_the_names_of_the_list(
    tmp_path: Path, numbers: tuple[str, ...], name: str, content: str
) -> None:
    """From 0 if there is a folder 0, from 1 if there is one of the last number; or by the numbers written."""
    folder = place(tmp_path / "in", *numbers)
    (folder / name).write_text(content, encoding="utf-8")
    assert labels(folder) == ["cat", "dog"]


def test_names_count_for_splits_lists_and_archives(tmp_path: Path) -> None:
    """Wherever the numbers come from, the file of names in the folder names them, and is not listed."""
    splits = place(tmp_path / "splits", "train/0", "train/1", "test/1")
    table = place(tmp_path / "table", "a")
    (table / "labels.csv").write_text("file,label\na/1.jpg,0\n")
    for folder in (splits, table):
        (folder / "classes.txt").write_text("cat\ndog\n")
    assert labels(splits) == ["cat", "dog", "dog"]
    assert labels(table) == labels(table / "labels.csv") == ["cat"]
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as made:
        for path in sorted(splits.rglob("*.*")):
            made.write(path, path.relative_to(tmp_path))
    assert labels(tmp_path / "x.zip") == ["cat", "dog", "dog"]
    with source_entries(str(splits), SourceOptions()) as entries:
        assert not [entry for entry in entries if isinstance(entry, PassedOver)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.txt", "7\n2\n1\n"),
        ("labels.txt", "0/1.jpg\n1/1.jpg\n"),
        ("classes.txt", "cat\ncat\n"),
        ("classes.txt", ""),
        ("classes.txt", "0\n1\n"),
        ("notes.txt", "cat\ndog\n"),
        ("labels.json", "no JSON"),
        ("labels.json", '{"a.jpg": "cat", "b.jpg": "dog"}'),
        ("labels.json", "[1, 2]"),
    ],
)
def test_another_file_changes_nothing(tmp_path: Path, name: str, content: str) -> None:
    """Digits are classes too: what is no list of names does not rename them."""
    folder = place(tmp_path / "in", "0", "1")
    (folder / name).write_text(content)
    assert labels(folder) == ["0", "1"]


def test_named_folders_keep_their_names(tmp_path: Path) -> None:
    """A list of names is about numbers alone."""
    folder = place(tmp_path / "in", "0", "other")
    (folder / "classes.txt").write_text("cat\ndog\n")
    assert labels(folder) == ["0", "other"]


@pytest.mark.parametrize(
    ("numbers", "files", "why"),
    [
        (("1", "2"), {"classes.txt": "cat\ndog\nbird\n"}, r"\(1, 2\), and classes.txt does not tell"),
        (("0", "5"), {"classes.txt": "cat\ndog\n"}, r"\(0, 5\), and classes.txt does not tell"),
        (("0", "1"), {"classes.txt": "cat\ndog\n", "labels.txt": "dog\ncat\n"}, "name them differently"),
    ],
)
def test_a_name_is_never_a_guess(
    tmp_path: Path, numbers: tuple[str, ...], files: dict[str, str], why: str
) -> None:
    """A wrong name is worse than a refusal that says what to do."""
    folder = place(tmp_path / "in", *numbers)
    for name, content in files.items():
        (folder / name).write_text(content)
    with pytest.raises(PermanentError, match=f"{why}.*remove the file"):
        labels(folder)
