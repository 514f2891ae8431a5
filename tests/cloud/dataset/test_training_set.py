"""Rules of cloud/dataset/training_set.py: whose label is believed, what training sees."""

import hashlib
import io
import os
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cloud.dataset import folder_import
from cloud.dataset.folder_import import MAX_IMAGE_BYTES, import_folder
from cloud.dataset.store import HAS_HUMAN_CLASS, Label, Row, Store
from cloud.dataset.training_set import examples, resolve_label
from schemas.errors import PermanentError
from schemas.messages import NEITHER


def jpeg(grey: int, size: tuple[int, int] = (32, 24)) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", size, grey).save(buffer, "JPEG")
    return buffer.getvalue()


def png(size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("1", size).save(buffer, "PNG")
    return buffer.getvalue()


def png_bomb() -> bytes:
    """A PNG that claims 30 000 x 30 000 pixels, whatever follows."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    return (
        png((1, 1))[:8]
        + struct.pack(">I", 13)
        + header
        + struct.pack(">I", zlib.crc32(header))
        + png((1, 1))[33:]
    )


def identify(image: bytes) -> str:
    return hashlib.blake2b(image, digest_size=16).hexdigest()


def sample(number: int, **fields: Any) -> Row:
    known: dict[str, Any] = {
        "image": jpeg(number),
        "width": 32,
        "height": 24,
        "received_at_ms": 1,
        "lane": "hard",
    }
    return Row(photo_id=f"{number:032x}", **known | fields)


def place(folder: Path, files: dict[str, bytes], changed_at_s: int = 1_000) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (changed_at_s, changed_at_s))
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "photos.lance")


@pytest.mark.parametrize(
    ("human", "teacher", "edge", "expected"),
    [
        ("a", "b", "c", ("a", "human")),
        (None, "b", "c", ("b", "teacher")),
        (None, None, "c", ("c", "edge")),
        (None, None, None, None),
    ],
)
def test_a_person_before_the_teacher_before_the_edge(
    human: str | None, teacher: str | None, edge: str | None, expected: tuple[str, str] | None
) -> None:
    """The label of the one who knows best counts."""
    assert resolve_label(human, teacher, edge) == expected


def test_a_sure_edge_and_its_teacher_have_to_agree(store: Store) -> None:
    """In the lane auto a photo counts with the teacher's label if both say the same; else a person has to."""

    def auto(number: int, edge: str | None, teacher: str, **fields: Any) -> Row:
        said = {"teacher_label": teacher, "teacher_by": "vit", "teacher_at_ms": 1}
        return sample(number, lane="auto", edge_label=edge, confidence=0.9, **said, **fields)

    human = {"human_label": "cow", "human_by": "ann", "human_at_ms": 1}
    store.upsert(
        [auto(1, "cat", "cat"), auto(2, "cat", "dog"), auto(3, None, "dog"), auto(4, "a", "b", **human)]
    )
    found = [(int(e.photo_id, 16), e.label, e.source, e.auto) for e in examples(store)]
    assert found == [(1, "cat", "teacher", True), (4, "cow", "human", False)]


def test_examples_are_labelled_photos(store: Store) -> None:
    """Photos without a label and labels without a photo are left out; the edge counts in lane auto only."""
    teacher = {"teacher_label": "dog", "teacher_by": "vit", "teacher_at_ms": 1}
    store.upsert(
        [
            sample(1, edge_label="cat", confidence=0.5, **teacher),
            sample(2, edge_label="cat", confidence=0.75, lane="auto"),
            sample(3, edge_label="cat", confidence=0.5),
            sample(4),
            sample(5, edge_label="cat", confidence=0.75, lane="auto"),
            sample(6, split="gold", edge_label="cat", confidence=0.75, lane="auto"),
        ]
    )
    said = {"label": "cow", "by": "ann", "at_ms": 1}
    store.label([Label(photo_id=f"{number:032x}", **said) for number in (5, 9)])  # type: ignore[arg-type]
    found = examples(store)
    assert [(int(e.photo_id, 16), e.label, e.source, e.weight) for e in found] == [
        (1, "dog", "teacher", 1.0),
        (2, "cat", "edge", 0.75),
        (5, "cow", "human", 1.0),
    ]
    assert found[0].image == jpeg(1)
    assert [int(e.photo_id, 16) for e in examples(store, split="gold")] == [6]


def test_a_photo_of_neither_is_no_example(store: Store) -> None:
    """A person's word for none of the classes is believed before teacher and edge, and is itself no class."""
    said = {"teacher_label": "cat", "teacher_by": "vit", "teacher_at_ms": 1, "edge_label": "cat"}
    store.upsert([sample(n, lane="auto", confidence=0.9, **said) for n in (1, 2)])
    store.upsert([sample(3, split="gold"), sample(4, edge_label=NEITHER, lane="auto", confidence=0.9)])
    store.label([Label(photo_id=f"{n:032x}", label=NEITHER, by="ann", at_ms=1) for n in (1, 3)])
    assert [int(e.photo_id, 16) for e in examples(store)] == [2]
    assert examples(store, split="gold") == []
    store.label([Label(photo_id=f"{1:032x}", label="dog", by="ann", at_ms=2)])
    assert [(e.label, e.source) for e in examples(store)] == [("dog", "human"), ("cat", "teacher")]


def test_what_is_not_asked_for_is_not_read(store: Store) -> None:
    """A further condition holds in the scan: the images of other photos never come into memory."""
    heavy = {"image": bytes(500_000), "lane": "auto", "edge_label": "cat", "confidence": 0.9}
    store.upsert([sample(n, **heavy) for n in range(40)])
    store.upsert([sample(n) for n in range(100, 103)])
    store.label([Label(photo_id=f"{n:032x}", label="cat", by="ann", at_ms=1) for n in range(100, 103)])
    tracemalloc.start()
    try:
        found = examples(store, where=HAS_HUMAN_CLASS)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [int(example.photo_id, 16) for example in found] == [100, 101, 102]
    assert peak_bytes < 10 * 500_000


def test_examples_of_a_tagged_version_stay_the_same(store: Store) -> None:
    """A model's examples can be read again after the dataset has grown."""
    store.upsert([sample(1, edge_label="cat", confidence=0.9, lane="auto")])
    store.tag("v1")
    store.upsert([sample(2, edge_label="cat", confidence=0.9, lane="auto")])
    store.label([Label(photo_id=f"{1:032x}", label="dog", by="ann", at_ms=1)])
    assert [(e.label, e.source) for e in examples(store, version="v1")] == [("cat", "edge")]
    assert len(examples(store)) == 2


def test_a_folder_is_imported_once(store: Store, tmp_path: Path) -> None:
    """The folder's name is a person's label, the id is the content's; a second run makes no version."""
    files = {f"cat/{n}.jpg": jpeg(n) for n in range(100)}
    files |= {"dog/a.png": png((5, 4)), ".hidden/a.jpg": b"", "beside.txt": b""}
    folder = place(tmp_path / "in", files)
    first = import_folder(store, folder, "train")
    assert (first.stored, first.duplicate, first.skipped) == (101, 0, {})
    version = store.version
    second = import_folder(store, folder, "train")
    assert (second.stored, second.duplicate, second.labelled, second.skipped) == (0, 101, 0, {})
    assert store.version == version
    (dog,) = (example for example in examples(store, split="train") if example.label == "dog")
    assert (dog.photo_id, dog.image, dog.source) == (identify(png((5, 4))), png((5, 4)), "human")
    columns = ["width", "height", "split", "origin", "human_at_ms"]
    assert list(store.scan(columns, where="human_label = 'dog'")) == [
        {"width": 5, "height": 4, "split": "train", "origin": "import", "human_at_ms": 1_000_000}
    ]


def test_files_that_are_no_photos_are_named(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each unusable file is skipped with its name and the reason; the others are stored."""
    monkeypatch.setattr(folder_import, "MAX_PIXELS", 10_000)
    files = {
        "cat/good.jpg": jpeg(1),
        "cat/text.jpg": b"no photo",
        "cat/cut.jpg": jpeg(2)[:20],
        "cat/empty.jpg": b"",
        "cat/large.jpg": jpeg(3) + bytes(MAX_IMAGE_BYTES),
        "cat/wide.png": png_bomb(),
        "cat/many.jpg": jpeg(4, (200, 100)),
        "cat/broken.png": png((5, 4))[:-20],
        "cat/half.jpg": jpeg(6)[:-40],
        "dog/twice.jpg": jpeg(1),
        "dog/good.jpg": jpeg(5),
    }
    result = import_folder(store, place(tmp_path / "in", files), "train")
    assert result.stored == 2
    assert set(result.skipped) == set(files) - {"cat/good.jpg", "dog/good.jpg"}
    assert "expected at most 2097152 bytes" in result.skipped["cat/large.jpg"]
    assert "200 x 100" in result.skipped["cat/many.jpg"]
    assert "in cat too" in result.skipped["dog/twice.jpg"]


def test_a_folder_labels_what_was_harvested(store: Store, tmp_path: Path) -> None:
    """A photo that is there already gets the folder's label, unless a person has said otherwise since."""
    small = {"image": b"small", "width": 1, "height": 1, "received_at_ms": 1}
    store.upsert([Row(photo_id=identify(jpeg(number)), **small) for number in (1, 2)])  # type: ignore[arg-type]
    store.label([Label(photo_id=identify(jpeg(2)), label="hen", by="ann", at_ms=2_000_000)])
    folder = place(tmp_path / "in", {"cat/1.jpg": jpeg(1), "cat/2.jpg": jpeg(2)}, changed_at_s=1_000)
    result = import_folder(store, folder, "train")
    assert (result.stored, result.duplicate, result.labelled) == (0, 2, 1)
    found = {(example.label, example.image) for example in examples(store, split="stream")}
    assert found == {("cat", b"small"), ("hen", b"small")}


def test_gold_and_training_never_share_a_photo(store: Store, tmp_path: Path) -> None:
    """A photo of another split is refused if one of the two is the gold set, and its label stays."""
    gold = place(tmp_path / "gold", {"cat/a.jpg": jpeg(1)})
    train = place(tmp_path / "train", {"dog/b.jpg": jpeg(1), "dog/c.jpg": jpeg(2)}, changed_at_s=2_000)
    import_folder(store, gold, "gold")
    result = import_folder(store, train, "train")
    assert result.stored == 1
    assert result.skipped == {"dog/b.jpg": "file dog/b.jpg: expected split train, got it stored under gold"}
    assert [(e.label, e.photo_id) for e in examples(store, split="gold")] == [("cat", identify(jpeg(1)))]
    assert len(import_folder(store, train, "gold").skipped) == 1


def test_a_folder_without_classes_is_an_error(store: Store, tmp_path: Path) -> None:
    """Photos must lie in a folder per class, and that is said."""
    with pytest.raises(PermanentError, match="expected one folder per class"):
        import_folder(store, place(tmp_path / "in", {"a.jpg": jpeg(1)}), "train")
    with pytest.raises(PermanentError, match="expected one folder per class"):
        import_folder(store, tmp_path / "nowhere", "train")


def test_progress_counts_every_file(store: Store, tmp_path: Path) -> None:
    """What is shown ends at the number of files, good or not."""
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
