"""Rules of cloud/dataset/importing/importer.py: labels from folder names, and which files are skipped."""

import errno
import io
import os
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from cloud.dataset.importing import importer, picture
from cloud.dataset.importing.entry import Item
from cloud.dataset.importing.formats.folder import folder_entries
from cloud.dataset.importing.import_result import ImportOptions, ImportResult
from cloud.dataset.importing.picture import MAX_IMAGE_BYTES
from cloud.dataset.schema import Split
from cloud.dataset.store import Label, Row, Store
from cloud.dataset.training_set import examples
from cloud.progress import Progress
from schemas.codec import content_id
from schemas.errors import PermanentError


def jpeg(grey: int, size: tuple[int, int] = (32, 24)) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", size, grey).save(buffer, "JPEG")
    return buffer.getvalue()


def png(size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("1", size).save(buffer, "PNG")
    return buffer.getvalue()


def png_bomb() -> bytes:
    """A PNG whose header claims 30 000 x 30 000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    return (
        png((1, 1))[:8]
        + struct.pack(">I", 13)
        + header
        + struct.pack(">I", zlib.crc32(header))
        + png((1, 1))[33:]
    )


def place(folder: Path, files: dict[str, bytes], changed_at_s: int = 1_000) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (changed_at_s, changed_at_s))
    return folder


def import_folder(
    store: Store, directory: Path, split: Split, progress: Progress | None = None
) -> ImportResult:
    """Import a folder with one folder per class."""
    entries = folder_entries(directory)
    importer.check_any(directory, entries)
    return importer.import_entries(store, entries, ImportOptions(split=split), progress)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "photos.lance")


def test_second_import_changes_nothing(store: Store, tmp_path: Path) -> None:
    """The folder's name is a human label, the id the content's digest; a second run makes no version."""
    files = {f"cat/{n}.jpg": jpeg(n) for n in range(100)}
    files |= {"dog/a.png": png((5, 4)), ".hidden/a.jpg": b"", "stray.txt": b""}
    folder = place(tmp_path / "in", files)
    first = import_folder(store, folder, "train")
    assert (first.stored, first.duplicate, first.skipped) == (101, 0, {})
    version = store.version
    second = import_folder(store, folder, "train")
    assert (second.stored, second.duplicate, second.labelled, second.skipped) == (0, 101, 0, {})
    assert store.version == version
    (dog,) = (example for example in examples(store, split="train") if example.label == "dog")
    assert (dog.photo_id, dog.image, dog.source) == (content_id(png((5, 4))), png((5, 4)), "human")
    columns = ["width", "height", "split", "origin", "human_at_ms"]
    assert list(store.scan(columns, where="human_label = 'dog'")) == [
        {"width": 5, "height": 4, "split": "train", "origin": "import", "human_at_ms": 1_000_000}
    ]


def test_unusable_files_are_skipped_with_a_reason(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damaged, oversized and ambiguous files are skipped by name with the reason; the others are stored."""
    monkeypatch.setattr(picture, "MAX_FILE_BYTES", MAX_IMAGE_BYTES)
    files = {
        "cat/good.jpg": jpeg(1),
        "cat/text.jpg": b"no photo",
        "cat/cut.jpg": jpeg(2)[:20],
        "cat/empty.jpg": b"",
        "cat/large.jpg": jpeg(3) + bytes(MAX_IMAGE_BYTES),
        "cat/wide.png": png_bomb(),
        "cat/broken.png": png((5, 4))[:-20],
        "cat/half.jpg": jpeg(6)[:-40],
        "dog/twice.jpg": jpeg(1),
        "dog/good.jpg": jpeg(5),
    }
    result = import_folder(store, place(tmp_path / "in", files), "train")
    assert result.stored == 2
    assert set(result.skipped) == set(files) - {"cat/good.jpg", "dog/good.jpg"}
    assert "expected at most 2097152 bytes" in result.skipped["cat/large.jpg"]
    assert "in class folder 'cat' too" in result.skipped["dog/twice.jpg"]


def test_a_file_that_cannot_be_read_is_named() -> None:
    """By its name and the system's reason, without numbers and paths."""

    def read() -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", "/in/cat/1.jpg")

    reason = picture.try_read(Item("cat/1.jpg", read, "cat"), ImportOptions())
    assert reason == "file cat/1.jpg: cannot be read: Permission denied"


def test_large_pictures_are_scaled_down_and_others_converted(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More bytes than the limit, and formats that Pillow opens, are stored as JPEG; the id is the file's."""
    monkeypatch.setattr(picture, "MAX_IMAGE_BYTES", 3_000)
    photo = Image.new("RGB", (64, 48), (200, 30, 30))
    noise = io.BytesIO()
    Image.effect_noise((200, 100), 90).save(noise, "JPEG")
    files = {"cat/many.jpg": noise.getvalue()}
    for kind in ("WEBP", "GIF", "BMP", "TIFF"):
        out = io.BytesIO()
        photo.save(out, kind)
        files[f"dog/{kind}.jpg"] = out.getvalue()  # with a name that does not fit
    result = import_folder(store, place(tmp_path / "in", files), "train")
    assert (result.stored, result.skipped) == (5, {})
    rows = {row["source"]: row for row in store.scan(["source", "image", "photo_id"])}
    assert {bytes(row["image"])[:3] for row in rows.values()} == {b"\xff\xd8\xff"}
    assert len(bytes(rows["cat/many.jpg"]["image"])) <= 3_000 < len(files["cat/many.jpg"])
    assert rows["cat/many.jpg"]["photo_id"] == content_id(files["cat/many.jpg"])


def test_import_labels_harvested_photos(store: Store, tmp_path: Path) -> None:
    """A photo that is stored already gets the folder's label, unless it has a later human label."""
    small = {"image": b"small", "width": 1, "height": 1, "received_at_ms": 1}
    store.upsert([Row(photo_id=content_id(jpeg(number)), **small) for number in (1, 2)])  # type: ignore[arg-type]
    store.label([Label(photo_id=content_id(jpeg(2)), label="hen", by="ann", at_ms=2_000_000)])
    folder = place(tmp_path / "in", {"cat/1.jpg": jpeg(1), "cat/2.jpg": jpeg(2)}, changed_at_s=1_000)
    result = import_folder(store, folder, "train")
    assert (result.stored, result.duplicate, result.labelled) == (0, 2, 1)
    found = {(example.label, example.image) for example in examples(store, split="stream")}
    assert found == {("cat", b"small"), ("hen", b"small")}


def test_photo_cannot_be_in_gold_and_another_split(store: Store, tmp_path: Path) -> None:
    """A photo of another split is skipped if one of the two is gold, and its label is unchanged."""
    gold = place(tmp_path / "gold", {"cat/a.jpg": jpeg(1)})
    train = place(tmp_path / "train", {"dog/b.jpg": jpeg(1), "dog/c.jpg": jpeg(2)}, changed_at_s=2_000)
    import_folder(store, gold, "gold")
    result = import_folder(store, train, "train")
    assert result.stored == 1
    assert result.skipped == {"dog/b.jpg": "file dog/b.jpg: already stored under split gold, not train"}
    assert [(e.label, e.photo_id) for e in examples(store, split="gold")] == [("cat", content_id(jpeg(1)))]
    assert len(import_folder(store, train, "gold").skipped) == 1


def test_folder_without_class_folders_is_an_error(store: Store, tmp_path: Path) -> None:
    """The error: each class needs a folder with photos."""
    with pytest.raises(PermanentError, match="no class folder with photos"):
        import_folder(store, place(tmp_path / "in", {"a.jpg": jpeg(1)}), "train")
    with pytest.raises(PermanentError, match="no class folder with photos"):
        import_folder(store, tmp_path / "nowhere", "train")


def test_progress_counts_every_file(store: Store, tmp_path: Path) -> None:
    """Progress adds up to the number of files, skipped ones included."""
    steps: list[tuple[str, int]] = []

    class Recorded:
        def start(self, step: str, total: int) -> None:
            steps.append((step, total))

        def advance(self, count: int = 1) -> None:
            steps.append(("", count))

    files = {f"cat/{n}.jpg": jpeg(n) if n % 2 else b"" for n in range(70)}
    import_folder(store, place(tmp_path / "in", files), "train", Recorded())
    assert steps[0] == ("import", 70)
    assert sum(count for _, count in steps[1:]) == 70
    assert len(steps) > 2


def test_moving_a_file_to_another_class_folder_is_a_correction(store: Store, tmp_path: Path) -> None:
    """A file that moved changes the label, with any date, also one in 2099; then nothing changes."""
    for date in (1_000, 4_070_908_800):
        folder = place(tmp_path / f"in{date}", {"dog/x.jpg": jpeg(date % 200)}, changed_at_s=date)
        import_folder(store, folder, "train")
        (folder / "cat").mkdir()
        (folder / "dog" / "x.jpg").rename(folder / "cat" / "x.jpg")
        moved = import_folder(store, folder, "train")
        assert (moved.stored, moved.duplicate, moved.labelled, moved.corrected) == (0, 1, 1, 1)
        again = import_folder(store, folder, "train")
        assert (again.duplicate, again.labelled, again.kept) == (1, 0, 0)
    assert {example.label for example in examples(store)} == {"cat"}
    assert all(row["human_at_ms"] < 4_000_000_000_000 for row in store.scan(["human_at_ms"]))


def test_a_persons_correction_outlives_the_next_import(store: Store, tmp_path: Path) -> None:
    """An unchanged folder does not undo a person's later label; the difference is counted."""
    folder = place(tmp_path / "in", {"cat/1.jpg": jpeg(1)})
    import_folder(store, folder, "train")
    store.label([Label(photo_id=content_id(jpeg(1)), label="hen", by="ann", at_ms=2_000_000)])
    result = import_folder(store, folder, "train")
    assert (result.duplicate, result.labelled, result.kept) == (1, 0, 1)
    assert [example.label for example in examples(store)] == ["hen"]


def test_a_dataset_of_an_earlier_version_takes_corrections_too(store: Store, tmp_path: Path) -> None:
    """Rows without the label of their import have it from that import; an unchanged folder writes nothing."""
    folder = place(tmp_path / "in", {"dog/1.jpg": jpeg(1)})
    import_folder(store, folder, "train")
    store.change([content_id(jpeg(1))], lambda record: record | {"imported_label": None, "source": None})
    version = store.version
    assert import_folder(store, folder, "train").duplicate == 1
    assert store.version == version
    (folder / "dog").rename(folder / "cat")
    assert import_folder(store, folder, "train").corrected == 1


def test_names_of_folders_become_class_names(store: Store, tmp_path: Path) -> None:
    """An outer space and a decomposed letter make no other class; a name that cannot be one is skipped."""
    files = {"cat/1.jpg": jpeg(1), "cat /2.jpg": jpeg(2), "Ka\u0308fer/3.jpg": jpeg(3)}
    files |= {"a\nb/4.jpg": jpeg(4), "x" * 129 + "/5.jpg": jpeg(5)}
    result = import_folder(store, place(tmp_path / "in", files), "train")
    assert result.classes == {"cat": 2, "K\u00e4fer": 1}
    assert set(result.skipped) == {"a\nb/4.jpg", "x" * 129 + "/5.jpg"}


def test_a_dry_run_stores_nothing(store: Store, tmp_path: Path) -> None:
    """It counts as the import does, also photos that are there and labels that would change."""
    folder = place(tmp_path / "in", {"cat/1.jpg": jpeg(1), "dog/2.jpg": jpeg(2)})
    options = ImportOptions(dry_run=True)
    assert importer.import_entries(None, folder_entries(folder), options).stored == 2
    import_folder(store, folder, "train")
    version = store.version
    (folder / "dog" / "2.jpg").rename(folder / "cat" / "2.jpg")
    place(folder, {"cat/3.jpg": jpeg(3)})
    result = importer.import_entries(store, folder_entries(folder), options)
    assert (result.stored, result.duplicate, result.corrected) == (1, 2, 1)
    assert store.version == version
