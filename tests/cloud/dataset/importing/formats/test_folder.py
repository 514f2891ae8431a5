"""Rules of cloud/dataset/importing/formats/folder.py: layouts, and that all skipped files are named."""

import os
import tempfile
from pathlib import Path

import pytest

from cloud.dataset.importing.entry import Item
from cloud.dataset.importing.formats.folder import folder_entries, split_of
from schemas.errors import PermanentError

JPEG = b"\xff\xd8\xff\xe0 not decoded here"


def place(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(JPEG)
    return folder


def labels(folder: Path, **options: object) -> dict[str, tuple[str | None, str | None]]:
    """Return label and split by name."""
    entries = folder_entries(folder, **options)  # type: ignore[arg-type]  # options vary by test
    return {entry.name: (entry.label, entry.split) for entry in entries if isinstance(entry, Item)}


def passed_over(folder: Path, **options: object) -> dict[str, str]:
    """Return reasons by name."""
    entries = folder_entries(folder, **options)  # type: ignore[arg-type]  # options vary by test
    return {entry.name: entry.reason for entry in entries if not isinstance(entry, Item)}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        ("Training_Set", "train"),
        ("val", "gold"),
        ("validation", "gold"),
        ("test1", "gold"),
        ("test_set", "gold"),
        ("gold", "gold"),
        ("hold-out", "gold"),
        ("01_train", "train"),
        ("train-split", "train"),
        ("stream", "stream"),
        ("trainer", None),
        ("cat", None),
        ("1", None),
    ],
)
def test_names_of_splits(name: str, split: str | None) -> None:
    """The usual names are known, with a number or `set` behind them; pictures for measuring are gold."""
    assert split_of(name) == split


def test_folders_of_splits_with_classes_in_them(tmp_path: Path) -> None:
    """Each picture gets class and split of its folders; a folder next to the splits is named."""
    place(tmp_path, "train/cat/1.jpg", "train/dog/2.jpg", "val/cat/3.jpg", "test/dog/4.jpg", "other/5.jpg")
    (tmp_path / "manifest.csv").write_text("x")
    assert labels(tmp_path) == {
        "train/cat/1.jpg": ("cat", "train"),
        "train/dog/2.jpg": ("dog", "train"),
        "val/cat/3.jpg": ("cat", "gold"),
        "test/dog/4.jpg": ("dog", "gold"),
    }
    reasons = passed_over(tmp_path)
    assert reasons.keys() == {"other/", "manifest.csv"}
    assert "import it on its own" in reasons["other/"]
    assert reasons["other/"].endswith("1 file")


def test_classes_in_file_names(tmp_path: Path) -> None:
    """Kaggle's layout: train/cat.1.jpg has its class in its name, test1/1.jpg has none."""
    place(tmp_path, "train/cat.1.jpg", "train/dog.1.jpg", "train/dog.2.jpg", "test1/1.jpg")
    assert labels(tmp_path) == {
        "train/cat.1.jpg": ("cat", "train"),
        "train/dog.1.jpg": ("dog", "train"),
        "train/dog.2.jpg": ("dog", "train"),
    }
    assert passed_over(tmp_path)["test1/1.jpg"].startswith("no label")
    assert labels(tmp_path / "train") == {
        "cat.1.jpg": ("cat", None),
        "dog.1.jpg": ("dog", None),
        "dog.2.jpg": ("dog", None),
    }


def test_splits_without_classes_are_refused(tmp_path: Path) -> None:
    """Folders train and test with loose pictures would be two classes; the error suggests what to do."""
    place(tmp_path, "train/1.jpg", "test/2.jpg")
    with pytest.raises(PermanentError, match=r"test, train are splits.* folder per class in each"):
        folder_entries(tmp_path)


def test_a_class_may_be_called_like_a_split(tmp_path: Path) -> None:
    """Among other class folders, `train` is a vehicle, also if its files have names like `ice_1.jpg`."""
    place(tmp_path, "car/1.jpg", "train/ice_1.jpg", "train/tgv_1.jpg", "plane/3.jpg")
    found = labels(tmp_path)
    assert found["train/ice_1.jpg"] == ("train", None)
    assert {label for label, _ in found.values()} == {"car", "train", "plane"}


def test_folders_of_cameras_are_no_classes(tmp_path: Path) -> None:
    """With `--recursive` too: where folders repeat inside others, it is not clear which are the classes."""
    place(tmp_path, *(f"meter-{meter}/{digit}/{digit}.jpg" for meter in "ab" for digit in "019"))
    with pytest.raises(PermanentError, match=r"0, 1, 9 are folders inside several folders"):
        folder_entries(tmp_path, recursive=True)
    place(tmp_path / "species", "cat/indoor/1.jpg", "cat/2.jpg", "dog/indoor/3.jpg")
    assert len(labels(tmp_path / "species", recursive=True)) == 3


def test_class_folders_one_level_deeper_are_refused(tmp_path: Path) -> None:
    """An unpacked archive has a folder around its class folders; the error names it."""
    place(tmp_path, "PetImages/Cat/1.jpg", "PetImages/Dog/1.jpg")
    with pytest.raises(PermanentError, match=r"one level deeper; import .*PetImages"):
        folder_entries(tmp_path)


def test_one_label_for_all_pictures(tmp_path: Path) -> None:
    """With a label, the folder itself is the class folder."""
    place(tmp_path, "1.jpg", "more/2.jpg")
    assert labels(tmp_path, label="cat") == {"1.jpg": ("cat", None)}
    assert labels(tmp_path, label="cat", recursive=True) == {
        "1.jpg": ("cat", None),
        "more/2.jpg": ("cat", None),
    }


def test_everything_that_is_passed_over_is_named(tmp_path: Path) -> None:
    """Nested folders, loose files, broken links, loops, hidden files, texts and pipes: path and reason."""
    place(tmp_path, "cat/1.jpg", "cat/nested/2023/2.jpg", "cat/.hidden.jpg", "loose.jpg", "cat/noext")
    (tmp_path / "cat/readme.txt").write_text("hello")
    (tmp_path / "empty").mkdir()
    (tmp_path / "cat/broken.jpg").symlink_to("nowhere")
    (tmp_path / "cat/loop").symlink_to("..")
    os.mkfifo(tmp_path / "cat/pipe.jpg")
    assert labels(tmp_path).keys() == {"cat/1.jpg", "cat/noext"}
    reasons = passed_over(tmp_path)
    assert reasons.keys() == {
        "cat/nested/",
        "cat/.hidden.jpg",
        "loose.jpg",
        "cat/readme.txt",
        "empty/",
        "cat/broken.jpg",
        "cat/loop/",
        "cat/pipe.jpg",
    }
    assert "--recursive" in reasons["cat/nested/"]
    assert "does not exist" in reasons["cat/broken.jpg"]
    assert labels(tmp_path, recursive=True)["cat/nested/2023/2.jpg"] == ("cat", None)


def test_folders_of_a_system_are_no_classes(tmp_path: Path) -> None:
    """A network drive puts its bin and its small copies between the folders of a person."""
    system = ("@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found", "@Recycle")
    place(tmp_path, "cat/1.jpg", *(f"{name}/1.jpg" for name in system), "cat/@eaDir/1.jpg")
    assert labels(tmp_path, recursive=True).keys() == {"cat/1.jpg"}
    assert passed_over(tmp_path).keys() == {*system, "cat/@eaDir"}


def test_folders_may_be_nested_more_deeply_than_calls(tmp_path):
    """A picture below hundreds of folders is found; no depth ends the import."""
    folder = place(tmp_path / "in", "cat/1.jpg") / "cat"
    for _ in range(550):
        folder /= "d"
        folder.mkdir()
    (folder / "2.jpg").write_bytes(JPEG)
    assert {label for label, _ in labels(tmp_path / "in", recursive=True).values()} == {"cat"}
    assert len(labels(tmp_path / "in", recursive=True)) == 2


@pytest.mark.parametrize("mode", [0o000, 0o444, 0o111], ids=["closed", "list-only", "enter-only"])
def test_a_folder_without_permission_is_named(mode):
    """Without permission to read or to enter a folder, the other classes are imported."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as scratch:  # not pytest's folder, which only its owner may enter
        folder = place(Path(scratch), "cat/1.jpg", "dog/1.jpg")
        folder.chmod(0o755)
        (folder / "dog").chmod(mode)
        if user == 0:
            os.seteuid(65_534)  # root may read everything
        try:
            assert labels(folder) == {"cat/1.jpg": ("cat", None)}
            assert passed_over(folder) == {"dog": "a folder that cannot be read"}
        finally:
            os.seteuid(user)
            (folder / "dog").chmod(0o755)


@pytest.mark.parametrize("recursive", [False, True])
def test_folders_around_the_class_folders_are_no_class(tmp_path: Path, *, recursive: bool) -> None:
    """dataset/images/train/cat of an archive: with `--recursive` too, all would be the class `dataset`."""
    place(tmp_path, "dataset/images/train/cat/1.jpg", "dataset/images/val/dog/2.jpg")
    with pytest.raises(PermanentError, match=r"further inside; import .*dataset/images; or all"):
        folder_entries(tmp_path, recursive=recursive)
    assert len(labels(tmp_path / "dataset/images")) == 2


def test_videos_among_the_photos_are_pointed_out(tmp_path: Path) -> None:
    """As a phone stores both: nothing of a video is imported, and the reason says how it is."""
    place(tmp_path, "cat/1.jpg", "cat/MOV_2.MOV", "top.mp4")
    (tmp_path / "cat/MOV_2.MOV").write_bytes(b"\0\0\0\x18ftypqt  ")
    (tmp_path / "top.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    said = passed_over(tmp_path)
    assert said.keys() == {"cat/MOV_2.MOV", "top.mp4"}
    assert all("a video; import it on its own with --label" in reason for reason in said.values())
    entries = folder_entries(tmp_path)
    assert not any(entry.expected for entry in entries if not isinstance(entry, Item))
