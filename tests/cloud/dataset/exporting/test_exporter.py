"""Rules of cloud/dataset/exporting: every format has every label with its source, and is read again."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cloud.dataset.curation import Selection
from cloud.dataset.exporting.exporter import FORMATS, export
from cloud.dataset.exporting.photo import folder_name
from cloud.dataset.importing.formats.source import SourceOptions, source_entries
from cloud.dataset.importing.import_result import ImportOptions
from cloud.dataset.importing.importer import import_entries
from cloud.dataset.store import Label, Row, Store
from schemas.errors import PermanentError
from tests.conftest import jpeg

# Importing TensorFlow 2.21 with a current NumPy and protobuf warns about their own deprecated names.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(tensorflow|keras|numpy|google).*")


def row(number: int, **fields: Any) -> Row:
    facts = {"width": 160, "height": 120, "received_at_ms": 1, "node": "edge-1", "device": "pi-1"}
    return Row(photo_id=f"{number:032x}", image=jpeg(number), **(facts | fields))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A person's label with a slash, a gold photo, a teacher's and an edge's label, and one without."""
    store = Store.open(tmp_path / "photos.lance")
    said = {"human_by": "ann", "human_at_ms": 1}
    auto = {"lane": "auto", "confidence": 0.9, "model": "pets", "model_version": 3}
    store.upsert(
        [
            row(0, human_label="cat/tabby", split="train", **said),
            row(1, human_label="d\u00f6g", split="gold", **said),
            row(2, lane="hard", edge_label="cat/tabby"),
            row(3, edge_label="d\u00f6g", **auto),
            row(4, lane="hard", edge_label="d\u00f6g"),
        ]
    )
    taught = Label(photo_id=f"{2:032x}", label="cat/tabby", by="teacher/1", at_ms=2, annotator="teacher")
    store.label([taught])
    return store


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_has_all_labelled_photos(store: Store, tmp_path: Path, kind: str) -> None:
    """Four labelled photos are exported, the one without a label is listed; a used folder is refused."""
    counts, left_out = export(store, tmp_path / "out", kind, Selection())
    assert counts == {"cat/tabby": 2, "d\u00f6g": 2}
    assert [(one.photo_id, one.reason) for one in left_out] == [(f"{4:032x}", "no label")]
    with pytest.raises(PermanentError, match="is not empty; export into a new one"):
        export(store, tmp_path / "out", kind, Selection())


@pytest.mark.parametrize("kind", ["folder", "coco", "parquet", "fiftyone", "label-studio"])
def test_what_was_exported_is_imported_again(store: Store, tmp_path: Path, kind: str) -> None:
    """The same pictures, labels and splits; only people's labels where models' are predictions."""
    export(store, tmp_path / "out", kind, Selection(labelled=True))
    other = Store.open(tmp_path / "other.lance")
    source = tmp_path / "out" / "tasks.json" if kind == "label-studio" else tmp_path / "out"
    with source_entries(str(source), SourceOptions()) as entries:
        import_entries(other, entries, ImportOptions())
    rows = other.scan(["human_label", "image", "split"])
    found = {row["human_label"]: (row["image"], row["split"]) for row in rows}
    assert found == {"cat/tabby": (jpeg(0), "train"), "d\u00f6g": (jpeg(1), "gold")}


def test_a_coco_file_of_a_split_is_imported_into_it(store: Store, tmp_path: Path) -> None:
    """Each list may be imported alone: a gold photo never becomes one to train on by that."""
    export(store, tmp_path / "out", "coco", Selection(labelled=True))
    other = Store.open(tmp_path / "other.lance")
    with source_entries(str(tmp_path / "out/annotations/gold.json"), SourceOptions()) as entries:
        import_entries(other, entries, ImportOptions())
    assert [(row["human_label"], row["split"]) for row in other.scan(["human_label", "split"])] == [
        ("d\u00f6g", "gold")
    ]


def test_tfrecord_is_read_by_tensorflow(store: Store, tmp_path: Path) -> None:
    """Picture, size, class with its number, and the label's source of each photo, in a file per split."""
    import tensorflow as tf  # noqa: PLC0415  # seconds to load, and for this format alone

    export(store, tmp_path / "out", "tfrecord", Selection())
    classes = (tmp_path / "out/classes.txt").read_text(encoding="utf-8").splitlines()
    texts = ("photo_id", "image/class/text", "label_source", "label_by", "image/encoded")
    numbers = ("image/width", "image/height", "image/class/label")
    features = {name: tf.io.FixedLenFeature([], tf.string) for name in texts}
    features |= {name: tf.io.FixedLenFeature([], tf.int64) for name in numbers}
    found = {}
    for path in (tmp_path / "out").glob("*.tfrecord"):
        for record in tf.data.TFRecordDataset(str(path)):
            read = tf.io.parse_single_example(record, features)
            number = int(read["photo_id"].numpy(), 16)
            assert read["image/encoded"].numpy() == jpeg(number)
            assert classes[int(read["image/class/label"])] == read["image/class/text"].numpy().decode()
            assert (int(read["image/width"]), int(read["image/height"])) == (160, 120)
            given = (read[name].numpy().decode() for name in ("image/class/text", "label_source", "label_by"))
            found[number] = (path.stem, *given)
    assert found == {
        0: ("train", "cat/tabby", "human", "ann"),
        1: ("gold", "d\u00f6g", "human", "ann"),
        2: ("stream", "cat/tabby", "teacher", "teacher/1"),
        3: ("stream", "d\u00f6g", "edge", "pets/3"),
    }


def test_fiftyone_finds_each_picture_with_its_class(store: Store, tmp_path: Path) -> None:
    """As its importer reads: the label of a picture is that of its file's name without suffix."""
    export(store, tmp_path / "out", "fiftyone", Selection())
    content = json.loads((tmp_path / "out/labels.json").read_text(encoding="utf-8"))
    named = {path.stem: path.read_bytes() for path in (tmp_path / "out/data").iterdir()}
    found = {int(key, 16): content["classes"][number] for key, number in content["labels"].items()}
    assert found == {0: "cat/tabby", 1: "d\u00f6g", 2: "cat/tabby", 3: "d\u00f6g"}
    assert named == {f"{number:032x}": jpeg(number) for number in found}


def test_a_class_is_no_path(store: Store, tmp_path: Path) -> None:
    """Slashes and leading dots of class names lead nowhere else."""
    assert folder_name("../up") == "%2E.%2Fup"
    assert folder_name("..") == "%2E."
    assert folder_name("d\u00f6g 1") == "d\u00f6g 1"
    long = {folder_name("\U0001f408" * 100 + end) for end in "ab"}
    assert len(long) == 2
    assert all(len(name.encode()) <= 200 for name in long)
    export(store, tmp_path / "out", "folder", Selection())
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"train", "gold", "stream", "metadata.csv"}
    assert (tmp_path / "out" / "train" / "cat%2Ftabby" / f"{0:032x}.jpg").read_bytes() == jpeg(0)


def test_sources_of_labels_are_in_the_export(store: Store, tmp_path: Path) -> None:
    """Human, teacher and edge are distinguished, with their names."""
    export(store, tmp_path / "parquet", "parquet", Selection())
    rows = pq.read_table(tmp_path / "parquet" / "data").to_pylist()
    sources = {int(row["photo_id"], 16): (row["label_source"], row["label_by"]) for row in rows}
    assert sources == {
        0: ("human", "ann"),
        1: ("human", "ann"),
        2: ("teacher", "teacher/1"),
        3: ("edge", "pets/3"),
    }
    export(store, tmp_path / "coco", "coco", Selection())
    content = json.loads((tmp_path / "coco" / "annotations" / "stream.json").read_text())
    assert {one["attributes"]["label_source"] for one in content["annotations"]} == {"teacher", "edge"}
    assert content["categories"] == [{"id": 1, "name": "cat/tabby"}, {"id": 2, "name": "d\u00f6g"}]
    export(store, tmp_path / "studio", "label-studio", Selection())
    tasks = json.loads((tmp_path / "studio" / "tasks.json").read_text())
    assert sorted("annotations" in task for task in tasks) == [False, False, True, True]


def test_nothing_to_export_is_an_error(tmp_path: Path) -> None:
    """The error names the command that shows what there is."""
    store = Store.open(tmp_path / "photos.lance")
    store.upsert([row(4, lane="hard", edge_label="cat")])
    with pytest.raises(PermanentError, match="no photo to export has a label; see 'gleaner cloud list'"):
        export(store, tmp_path / "out", "folder", Selection())
    assert not (tmp_path / "out").exists()


def test_a_class_that_is_a_formula_is_text_in_a_table(tmp_path: Path) -> None:
    """Also the name of who labelled it, which a device chooses; the import has the class as it was."""
    store = Store.open(tmp_path / "photos.lance")
    store.upsert([row(0, human_label="=1+1", human_by="@SUM(1)", human_at_ms=1, split="train")])
    export(store, tmp_path / "out", "folder", Selection())
    table = (tmp_path / "out/metadata.csv").read_text(encoding="utf-8")
    assert (",'=1+1," in table, ",'@SUM(1)," in table) == (True, True)
    other = Store.open(tmp_path / "other.lance")
    with source_entries(str(tmp_path / "out"), SourceOptions()) as entries:
        import_entries(other, entries, ImportOptions())
    assert [one["human_label"] for one in other.scan(["human_label"])] == ["=1+1"]
