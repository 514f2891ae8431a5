"""Rules of cloud/dataset/importing/formats/source.py: formats are recognised and read, errors by item."""

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cloud.dataset.importing.entry import Item
from cloud.dataset.importing.formats.read_table import csv_entries
from cloud.dataset.importing.formats.source import SourceOptions, source_entries
from cloud.dataset.importing.import_result import ImportOptions, ImportResult
from cloud.dataset.importing.importer import import_entries
from cloud.dataset.store import Store
from schemas.errors import PermanentError


def jpeg(seed: int) -> bytes:
    out = io.BytesIO()
    Image.effect_noise((40, 30), 50 + seed).convert("RGB").save(out, "JPEG")
    return out.getvalue()


def place(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(number))
    return folder


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "photos.lance")


def imported(store: Store, source: Path) -> tuple[dict[str, tuple[object, object]], ImportResult]:
    """Import a source; return label and split by source name, and the counts."""
    with source_entries(str(source), SourceOptions()) as entries:
        result = import_entries(store, entries, ImportOptions())
    rows = store.scan(["source", "human_label", "split"])
    return {str(row["source"]): (row["human_label"], row["split"]) for row in rows}, result


def test_csv(store: Store, tmp_path: Path) -> None:
    """A column of files and one of labels, in any case, with semicolons and a byte-order mark."""
    place(tmp_path / "in", "a.jpg", "sub/b.jpg", "c.jpg")
    rows = "\ufeffFile_Name;Label;split\na.jpg;cat;train\nsub/b.jpg;dog;test\nc.jpg;;\ngone.jpg;cat;\n;cat;\n"
    found, result = imported(store, write(tmp_path / "in" / "labels.csv", rows))
    assert found == {"a.jpg": ("cat", "train"), "sub/b.jpg": ("dog", "gold")}
    assert result.skipped.keys() == {"c.jpg", "gone.jpg", "labels.csv:6"}
    with pytest.raises(PermanentError, match="no column for files; name columns file_name and label"):
        imported(store, write(tmp_path / "in" / "x.csv", "one,two\n1,2\n"))


@pytest.mark.parametrize(
    "rows",
    [
        "sep=;\nfile_name;label\na.jpg;cat\nb.jpg;dog\n",
        "sep=|\r\nfile_name|label\r\na.jpg|cat\r\nb.jpg|dog\r\n",
        "file_name|label\na.jpg|cat\nb.jpg|dog\n",
        "file_name ; label\na.jpg ; cat\n b.jpg;dog \n",
        '"file_name","label"\n"a.jpg","cat"\n"b.jpg","dog"\n',
    ],
)
def test_a_table_may_have_any_usual_delimiter(store: Store, tmp_path: Path, rows: str) -> None:
    """As spreadsheets write them: named in a first line, or with blanks around it."""
    place(tmp_path / "in", "a.jpg", "b.jpg")
    found, _ = imported(store, write(tmp_path / "in" / "labels.csv", rows))
    assert sorted(label for label, _ in found.values()) == ["cat", "dog"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.jsonl", '{"file_name": "a.jpg", "label": 0}\n{"file_name": "b.jpg", "label": 1}\n'),
        ("labels.csv", "file,label\na.jpg,0\nb.jpg,1\n"),
        ("export.json", [{"image": "a.jpg", "choice": 0}, {"image": "b.jpg", "choice": 1}]),
    ],
)
def test_zero_is_a_label(store: Store, tmp_path: Path, name: str, content: object) -> None:
    """Digits and numbered classes begin with it."""
    place(tmp_path / "in", "a.jpg", "b.jpg")
    write(tmp_path / "in" / name, content)
    found, result = imported(store, tmp_path / "in")
    assert (sorted(str(label) for label, _ in found.values()), result.skipped) == (["0", "1"], {})


@pytest.mark.parametrize(
    "data",
    [
        {"text": "Seen at 5.30 p.m.", "image": "/data/upload/1/a.jpg"},
        {"meta": "v1.2", "frame": "a.JPG"},
        {"Image": "s3://bucket/a"},
    ],
)
def test_a_task_may_have_texts_beside_its_picture(tmp_path: Path, data: dict[str, str]) -> None:
    """The picture is the field with a picture's suffix, else the one with a usual name."""
    task = {"data": data, "annotations": [{"result": [{"value": {"choices": ["cat"]}}]}]}
    (tmp_path / "a.JPG").write_bytes(jpeg(1))
    (tmp_path / "a.jpg").write_bytes(jpeg(1))
    (tmp_path / "a").write_bytes(jpeg(1))
    with source_entries(str(write(tmp_path / "x.json", [task])), SourceOptions()) as entries:
        assert [entry.label for entry in entries if isinstance(entry, Item)] == ["cat"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cat_to_name.json", {"0": "cat"}),
        ("dataset-metadata.json", [{"title": "Pets", "url": "https://example.org/cover.jpg"}]),
        ("broken.json", "no JSON"),
        ("metadata.csv", "id,width\n1,2\n"),
        ("cat/metadata.csv", "id,width\n1,2\n"),
        ("metadata.jsonl", '{"id": 1}\n'),
        ("sizes.csv", "id,width\n1,2\n"),
        ("elsewhere.csv", "file,label\nnot-here.jpg,cat\n"),
    ],
)
def test_a_file_that_lists_no_pictures_is_no_obstacle(
    store: Store, tmp_path: Path, name: str, content: object
) -> None:
    """Folders of classes are read as such, even with other files among them."""
    place(tmp_path / "in", "cat/1.jpg", "dog/2.jpg")
    write(tmp_path / "in" / name, content)
    found, result = imported(store, tmp_path / "in")
    assert sorted(label for label, _ in found.values()) == ["cat", "dog"]
    assert result.ignored.keys() == {name}


def test_a_table_in_the_folder_names_the_classes(store: Store, tmp_path: Path) -> None:
    """Where the folders are cameras, the table has the labels of the pictures."""
    place(tmp_path / "in", "meter-a/1.jpg", "meter-b/1.jpg")
    write(tmp_path / "in" / "manifest.csv", "path,label,device\nmeter-a/1.jpg,0,a\nmeter-b/1.jpg,7,b\n")
    found, _ = imported(store, tmp_path / "in")
    assert found == {"meter-a/1.jpg": ("0", "train"), "meter-b/1.jpg": ("7", "train")}


def test_tables_of_splits_are_read_together(store: Store, tmp_path: Path) -> None:
    """Each is named after its split; others could contradict each other, and are refused."""
    place(tmp_path / "in", "1.jpg", "2.jpg")
    write(tmp_path / "in" / "train.csv", "file,label\n1.jpg,cat\n")
    write(tmp_path / "in" / "test.csv", "file,label\n2.jpg,dog\n")
    found, _ = imported(store, tmp_path / "in")
    assert found == {"1.jpg": ("cat", "train"), "2.jpg": ("dog", "gold")}
    write(tmp_path / "in" / "corrected.csv", "file,label\n2.jpg,cat\n")
    with pytest.raises(PermanentError, match=r"several lists of pictures: corrected.csv, test"):
        imported(store, tmp_path / "in")


def test_coco(store: Store, tmp_path: Path) -> None:
    """A folder with images/ and annotations/: a picture whose boxes have one class gets it."""
    place(tmp_path / "in" / "images", "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    names = ("a.jpg", "b.jpg", "c.jpg", "d.jpg", "gone.jpg")
    content = {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(names)] + [{"id": 9}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"image_id": image, "category_id": category}
            for image, category in ((0, 1), (0, 1), (1, 2), (2, 1), (2, 2), (4, 1))
        ],
    }
    write(tmp_path / "in" / "annotations" / "instances.json", content)
    found, result = imported(store, tmp_path / "in")
    assert found == {"a.jpg": ("cat", "train"), "b.jpg": ("dog", "train")}
    assert result.skipped["c.jpg"] == "2 labels: cat, dog"
    assert result.skipped["d.jpg"] == "no label"
    assert "no such file" in result.skipped["gone.jpg"]
    assert result.skipped["instances.json: image 5"] == "no file_name"


def test_yolo_classification(store: Store, tmp_path: Path) -> None:
    """Folders train and val with a folder per class; boxes are refused with what to do."""
    found, _ = imported(store, place(tmp_path / "in", "train/cat/1.jpg", "val/dog/2.jpg"))
    assert found == {"train/cat/1.jpg": ("cat", "train"), "val/dog/2.jpg": ("dog", "gold")}
    write(place(tmp_path / "boxes", "images/1.jpg") / "labels" / "1.txt", "0 0.5 0.5 1 1")
    with pytest.raises(PermanentError, match="boxes for YOLO"):
        imported(store, tmp_path / "boxes")


def test_label_studio(store: Store, tmp_path: Path) -> None:
    """JSON and JSON-MIN; addresses of local storage and uploads; the newest annotation counts."""

    def annotation(label: str, at: str, **fields: object) -> dict[str, object]:
        return {"result": [{"value": {"choices": [label]}}], "updated_at": at} | fields

    place(tmp_path / "in", "pets/a.jpg", "b.jpg", "c.jpg")
    tasks = [
        {
            "data": {"image": "/data/local-files/?d=pets/a.jpg"},
            "annotations": [
                annotation("dog", "2024-01-01T00:00:00Z"),
                annotation("cat", "2024-02-01T00:00:00Z"),
                annotation("cow", "2024-03-01T00:00:00Z", was_cancelled=True),
            ],
        },
        {"image": "/data/upload/3/0123abcd-b.jpg", "choice": "dog"},
        {"data": {"image": "c.jpg"}, "annotations": []},
        {"data": {"text": "no picture"}},
    ]
    found, result = imported(store, write(tmp_path / "in" / "export.json", tasks))
    assert sorted(found.values()) == [("cat", "train"), ("dog", "train")]
    assert result.skipped == {"c.jpg": "no label", "export.json: task 3": "no picture"}
    (row,) = store.scan(["human_at_ms"], where="human_label = 'cat'")
    assert row["human_at_ms"] == 1_706_745_600_000


def test_label_studio_with_its_folder_of_uploads(store: Store, tmp_path: Path) -> None:
    """The folder of its media is copied as it is, with the number of the project."""
    place(tmp_path / "in", "upload/3/0123abcd-b.jpg")
    write(tmp_path / "in" / "export.json", [{"image": "/data/upload/3/0123abcd-b.jpg", "choice": "dog"}])
    assert list(imported(store, tmp_path / "in")[0].values()) == [("dog", "train")]


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("filename, cat, dog\n1.jpg, 0.7, 0.3\n", "labels.csv: .*column"),  # scores, no labels
        ("1.jpg,cat\n", "labels.csv: .*column"),
    ],
)
def test_a_list_that_is_none_is_named_where_no_folder_is_a_class(
    tmp_path: Path, table: str, reason: str
) -> None:
    """The way out is to mend the list, not to move the photos."""
    place(tmp_path, "1.jpg")
    (tmp_path / "labels.csv").write_text(table)
    told = f"no list of them \\({reason}.*columns file and label$"
    with pytest.raises(PermanentError, match=told), source_entries(str(tmp_path), SourceOptions()):
        pass


LOCAL, UPLOAD = "/data/local-files/?d=pets/a.jpg", "/data/upload/3/4cf5c4a6-b.jpg"


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("newest_first", [False, True])
def test_what_label_studio_exports_has_a_line_per_annotation(
    tmp_path: Path, *, newest_first: bool, whole: bool
) -> None:
    """As version 1.23 writes CSV and JSON-MIN: of two annotations of a task the newer one counts."""
    rows = [
        {
            "annotation_id": 19,
            "class": "cat",
            "id": 17,
            "image": LOCAL,
            "split": "gold",
            "updated_at": "2026-12-01T13:51:19.9Z",
        },
        {
            "annotation_id": 35,
            "class": "dog",
            "id": 17,
            "image": LOCAL,
            "split": "gold",
            "updated_at": "2026-12-01T13:51:21.2Z",
        },
        {
            "annotation_id": 20,
            "class": "cat",
            "id": 18,
            "image": UPLOAD,
            "split": "",
            "updated_at": "2026-12-01T13:51:19.9Z",
        },
    ]
    rows = rows[::-1] if newest_first else rows
    place(tmp_path / "in", "pets/a.jpg", "b.jpg")
    for name, content in (
        ("min.json", json.dumps(rows)),
        ("x.csv", "\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)])),
    ):
        path = write(tmp_path / "in" / name, content)
        with source_entries(str(path.parent if whole else path), SourceOptions()) as entries:
            found = {entry.label: entry.split for entry in entries if isinstance(entry, Item)}
            assert len(entries) == 2
        assert found == {"dog": "gold", "cat": None}
        path.unlink()


def test_cvat(store: Store, tmp_path: Path) -> None:
    """Tags and boxes of `annotations.xml`; entities are refused."""
    place(tmp_path / "in", "images/a.jpg", "images/b.jpg")
    images = '<image name="a.jpg"><tag label="cat"/></image><image name="b.jpg"><box label="dog"/></image>'
    export = write(tmp_path / "in" / "annotations.xml", f"<annotations>{images}</annotations>")
    found, _ = imported(store, tmp_path / "in")
    assert found == {"a.jpg": ("cat", "train"), "b.jpg": ("dog", "train")}
    write(export, f'<!DOCTYPE a [<!ENTITY x "y">]><annotations>{images}</annotations>')
    with pytest.raises(PermanentError, match="entities"):
        imported(store, export)


def test_hugging_face_folder(store: Store, tmp_path: Path) -> None:
    """metadata.jsonl in folders of splits; a line that is not JSON does not affect the others."""
    place(tmp_path / "in", "train/a.jpg", "test/b.jpg")
    write(tmp_path / "in/train/metadata.jsonl", '{"file_name": "a.jpg", "label": "cat"}\n{broken\n')
    write(tmp_path / "in/test/metadata.csv", "file_name,label\nb.jpg,dog\n")
    found, result = imported(store, tmp_path / "in")
    assert found == {"train/a.jpg": ("cat", "train"), "test/b.jpg": ("dog", "gold")}
    assert list(result.skipped) == ["metadata.jsonl:2"]


def test_parquet(store: Store, tmp_path: Path) -> None:
    """Pictures and numbered labels, whose names are in the metadata; a damaged one is skipped."""
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    schema = pa.schema([("image", image), ("label", pa.int64())], metadata=metadata)
    pictures = [jpeg(0), jpeg(1), b"none", None]
    rows = [
        {"image": {"bytes": content, "path": None}, "label": label}
        for content, label in zip(pictures, (0, 1, 0, 7), strict=True)
    ]
    path = tmp_path / "in" / "data" / "test-00000-of-00001.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, row_group_size=2)
    found, result = imported(store, tmp_path / "in")
    assert sorted(found.values()) == [("cat", "gold"), ("dog", "gold")]
    assert len(result.skipped) == 2
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(PermanentError, match=r"cannot import .*test-00000"):
        imported(store, path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("photos.zip", "it is neither a zip nor a tar file"),
        ("notes.docx", "not a folder; files may be .csv"),
        ("other.json", "not an export of COCO, FiftyOne or Label Studio"),
        ("clip.mp4", "a video has no class names; use --label"),
        ("broken.xml", "cannot import"),
    ],
)
def test_what_cannot_be_read_says_what_to_do(tmp_path: Path, name: str, reason: str) -> None:
    """An unknown file is refused before the dataset is opened."""
    path = write(tmp_path / name, '{"x": 1}')
    with pytest.raises(PermanentError, match=reason), source_entries(str(path), SourceOptions()):
        pass


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """With any name, also that of a list of pictures; as the source it is refused."""
    place(tmp_path, "train/cat/1.jpg", "test/dog/2.jpg")
    lists = (
        "metadata.csv",
        "metadata.jsonl",
        "labels.csv",
        "a.tsv",
        "coco.json",
        "annotations.xml",
        "x.parquet",
    )
    for name in (*lists, "pipe", "train/pipe", "train/metadata.csv", "train/cat/pipe", "data/x.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        os.mkfifo(tmp_path / name)
    with source_entries(str(tmp_path), SourceOptions()) as entries:
        assert {entry.name for entry in entries if isinstance(entry, Item)} == {
            "train/cat/1.jpg",
            "test/dog/2.jpg",
        }
    for name in lists:
        with (
            pytest.raises(PermanentError, match="neither a folder nor a regular file"),
            source_entries(str(tmp_path / name), SourceOptions()),
        ):
            pass


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    """The sentence is as short as the mistake."""
    with (
        pytest.raises(PermanentError, match="nowhere: no such folder"),
        source_entries(str(tmp_path / "nowhere"), SourceOptions()),
    ):
        pass


@pytest.fixture
def clip(tmp_path: Path) -> Iterator[Path]:
    """A film of three seconds, one colour each."""
    cv2 = pytest.importorskip("cv2")
    np = pytest.importorskip("numpy")
    path = tmp_path / "clip.avi"
    film = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for frame in range(30):
        film.write(np.full((48, 64, 3), 40 + 80 * (frame // 10), np.uint8))
    film.release()
    return path


def test_a_video_is_sampled(clip: Path) -> None:
    """One frame per second, all with the given label, at most as many as asked for."""
    with source_entries(str(clip), SourceOptions(label="cat")) as entries:
        items = [entry for entry in entries if isinstance(entry, Item)]
        assert [item.name for item in items] == ["clip.avi@0.0s", "clip.avi@1.0s", "clip.avi@2.0s"]
        assert {item.label for item in items} == {"cat"}
        assert all(item.read().startswith(b"\xff\xd8") for item in items)
    with source_entries(str(clip), SourceOptions(label="cat", max_frames=2)) as entries:
        assert len(entries) == 2


LONG = "x" * 300
CATS = {"images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}]}
CLASSES = {"categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]}
ANNOTATED = {"annotations": [{"image_id": 1, "category_id": 1}, {"image_id": 2, "category_id": 2}]}
TASK = {"image": "b.jpg", "choice": "dog"}
XML = (
    '<annotations><image name="a.jpg"><tag label="cat"/></image>'
    '<image name="b.jpg"><tag label="dog"/></image></annotations>'
)
BOTH = {"a.jpg": "cat", "b.jpg": "dog"}
DOG = {"b.jpg": "dog"}
LISTS: dict[str, tuple[str, str | bytes | object, dict[str, str]]] = {
    "CSV in UTF-16": ("x.csv", "file\tlabel\na.jpg\tcat\nb.jpg\tdog\n".encode("utf-16"), BOTH),
    "CSV in Latin-1": ("x.csv", "file,label\na.jpg,K\xe4fer\nb.jpg,dog\n".encode("latin-1"), DOG),
    "CSV, NUL in a name": ("x.csv", "file,label\na\0.jpg,cat\nb.jpg,dog\n", DOG),
    "CSV, a name that is too long": ("x.csv", f"file,label\n{LONG},cat\nb.jpg,dog\n", DOG),
    "CSV, a field that is too long": ("x.csv", f"file,label\na.jpg,{'c' * 200_000}\nb.jpg,dog\n", DOG),
    "CSV, backslashes": ("x.csv", "file,label\n.\\b.jpg,dog\n", {".\\b.jpg": "dog"}),
    "CSV, an address": ("x.csv", "file,label\nhttp://h/a.jpg,cat\nb.jpg,dog\n", DOG),
    "CSV, a device": ("x.csv", "file,label\n/dev/zero,cat\nb.jpg,dog\n", DOG),
    "JSON lines, nested": ("metadata.jsonl", "[" * 100_000 + '\n{"file_name":"b.jpg","label":"dog"}\n', DOG),
    "JSON lines, no text": (
        "metadata.jsonl",
        '{"file_name":"a.jpg","label":["cat"]}\n{"file_name":5}\n{"file_name":"b.jpg","label":"dog"}\n',
        DOG,
    ),
    "COCO, ids of several types": (
        "x.json",
        CATS
        | CLASSES
        | {"annotations": [{"image_id": "1", "category_id": 1.0}, {"image_id": 2, "category_id": 2}]},
        BOTH,
    ),
    "COCO, ids that are lists": (
        "x.json",
        {"images": [{"id": [], "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}]}
        | {"categories": [{"id": [1], "name": "cat"}, {"id": 2, "name": "dog"}]}
        | {"annotations": [{"image_id": {}, "category_id": [1]}, {"image_id": 2, "category_id": 2}]},
        DOG,
    ),
    "COCO, a class that is no text": (
        "x.json",
        CATS | ANNOTATED | {"categories": [{"id": 1, "name": {"en": "cat"}}, {"id": 2, "name": "dog"}]},
        DOG,
    ),
    "COCO, names of no file": (
        "x.json",
        CLASSES
        | {
            "images": [
                *({"id": 1, "file_name": name} for name in (LONG, "a\0", "a\ud800")),
                CATS["images"][1],
            ]
        }
        | ANNOTATED,
        DOG,
    ),
    "Label Studio, a broken address": (
        "x.json",
        [{"image": "http://[::1/a.jpg", "choice": "cat"}, TASK],
        DOG,
    ),
    "Label Studio, odd results": (
        "x.json",
        [{"image": "a.jpg", "annotations": [{"result": [{"value": ["cat"]}, {"value": 5}, 5]}]}, TASK],
        DOG,
    ),
    "CVAT, a picture without a name": ("x.xml", XML.replace('name="a.jpg"', ""), DOG),
    "CVAT, a name that is too long": ("x.xml", XML.replace("a.jpg", LONG), DOG),
}


@pytest.mark.parametrize("name", LISTS)
def test_an_odd_line_of_a_list_costs_itself(tmp_path: Path, name: str) -> None:
    """Any bad line is skipped with a reason, and the others are imported."""
    file, content, expected = LISTS[name]
    place(tmp_path, "a.jpg", "b.jpg")
    if isinstance(content, bytes):
        (tmp_path / file).write_bytes(content)
    else:
        write(tmp_path / file, content)
    source = tmp_path if file == "metadata.jsonl" else tmp_path / file
    with source_entries(str(source), SourceOptions()) as entries:
        found = {entry.name: entry.label for entry in entries if isinstance(entry, Item) and entry.label}
    assert found == expected


def test_a_name_is_found_however_its_accents_are_written(tmp_path: Path) -> None:
    """With letters and marks, as macOS unpacks it, or with whole letters, as tables have it."""
    place(tmp_path, "a\N{COMBINING DIAERESIS}.jpg", "\N{LATIN SMALL LETTER O WITH DIAERESIS}.jpg")
    names = "\N{LATIN SMALL LETTER A WITH DIAERESIS}.jpg,cat\no\N{COMBINING DIAERESIS}.jpg,dog\n"
    source = write(tmp_path / "x.csv", f"file,label\n{names}")
    with source_entries(str(source), SourceOptions()) as entries:
        assert [entry.label for entry in entries if isinstance(entry, Item)] == ["cat", "dog"]


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        (
            "x.csv",
            "file,label\n\xe4.jpg,cat\n".encode("latin-1"),
            "its name is not UTF-8; save the list as UTF-8",
        ),
        ("x.xml", f'<?xml version="1.0" encoding="foo"?>{XML}', "unknown encoding: foo"),
        ("x.xml", f'<?xml version="1.0" encoding="shift_jis"?>{XML}', "multi-byte encodings"),
        (
            "x.csv",
            "file,label\nnone.jpg,cat\n",
            r"x.csv: it lists no picture that is there \(none.jpg: there is no",
        ),
    ],
)
def test_a_list_that_cannot_be_read_is_one_sentence(
    tmp_path: Path, file: str, content: str | bytes, words: str
) -> None:
    """Its encoding is unknown, or none of its pictures is there."""
    source = tmp_path / file
    source.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(PermanentError, match=words), source_entries(str(source), SourceOptions()):
        pass


def test_a_parquet_row_reads_no_device(store: Store, tmp_path: Path) -> None:
    """A path in a row from elsewhere could be read without end."""
    table = pa.table({"image": [{"bytes": None, "path": "/dev/zero"}], "label": ["cat"]})
    pq.write_table(table, tmp_path / "x.parquet")
    _, result = imported(store, tmp_path / "x.parquet")
    assert [*result.skipped.values()] == ["/dev/zero: not a file"]


def coco(file_names: list[str], categories: list[int]) -> dict[str, object]:
    """A COCO file with one annotation for each picture, of cat (0) or dog (1)."""
    return {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(file_names)],
        "annotations": [{"image_id": number, "category_id": one} for number, one in enumerate(categories)],
        "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}],
    }


def test_lists_in_folders_of_splits(store: Store, tmp_path: Path) -> None:
    """Roboflow's COCO: each split has a list and its pictures; a split without a list is named."""
    for split in ("train", "valid"):
        place(tmp_path / "in" / split, "a.jpg", "b.jpg")
        write(tmp_path / "in" / split / "_annotations.coco.json", coco(["a.jpg", "b.jpg"], [0, 1]))
        (tmp_path / "in" / split / "b.jpg").write_bytes(jpeg(90 + len(split)))
    (tmp_path / "in/valid/a.jpg").write_bytes(jpeg(80))
    place(tmp_path / "in/test", "a.jpg")
    found, result = imported(store, tmp_path / "in")
    assert found == {
        "train/a.jpg": ("cat", "train"),
        "train/b.jpg": ("dog", "train"),
        "valid/a.jpg": ("cat", "gold"),
        "valid/b.jpg": ("dog", "gold"),
    }
    assert result.skipped == {"test/": "a split without a list of its pictures"}


def test_splits_may_have_pictures_of_the_same_names(store: Store, tmp_path: Path) -> None:
    """instances_val2017.json is about val2017/; where it is unclear which file is meant, none is taken."""
    for number, split in enumerate(("train2017", "val2017")):
        (tmp_path / "in" / split).mkdir(parents=True)
        (tmp_path / "in" / split / "0.jpg").write_bytes(jpeg(number))
        write(tmp_path / f"in/annotations/instances_{split}.json", coco(["0.jpg"], [number]))
    found, result = imported(store, tmp_path / "in")
    assert sorted(found.values()) == [("cat", "train"), ("dog", "gold")]
    assert not result.skipped
    other = write(tmp_path / "in/annotations/all.json", coco(["0.jpg", "gone.jpg"], [0, 1]))
    with pytest.raises(PermanentError, match=r"0\.jpg: files of this name are in train2017 and val2017"):
        imported(store, other)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("labels.csv", "a.jpg,cat\nb.jpg,dog\n", "labels.csv: its first line has no column for files"),
        ("labels.csv", "file,cat,dog\nimg/a.jpg,0.7,0.3\n", "no column for labels"),
        ("labels.csv", "file,label\nx.jpg,cat\n", "labels.csv: none of the pictures that it lists is there"),
        ("list.json", [{"name": "a.jpg"}], "list.json: not an export of COCO"),
        ("voc/a.xml", "<annotation/>", "img, the name of its folder, is no class; make a folder per class"),
    ],
)
def test_a_folder_called_images_is_no_class(tmp_path: Path, name: str, content: object, reason: str) -> None:
    """An export whose list cannot be read would become one class `img`: the error has the reason."""
    write(place(tmp_path / "in", "img/a.jpg", "img/b.jpg") / name, content)
    with (
        pytest.raises(PermanentError) as error,
        source_entries(str(tmp_path / "in"), SourceOptions()),
    ):
        pass
    assert reason in str(error.value)
    with source_entries(str(tmp_path / "in"), SourceOptions(label="cat", recursive=True)) as entries:
        assert sum(isinstance(entry, Item) for entry in entries) == 2


def test_boxes_of_splits_are_refused(tmp_path: Path) -> None:
    """Roboflow's YOLO has train/images and train/labels; these are not classes either."""
    for split in ("train", "valid"):
        write(place(tmp_path / split, "images/1.jpg") / "labels" / "1.txt", "")
    with (
        pytest.raises(PermanentError, match="boxes for YOLO"),
        source_entries(str(tmp_path), SourceOptions()),
    ):
        pass


def test_paths_of_another_machine(store: Store, tmp_path: Path) -> None:
    """A list from Windows or from a server of Label Studio names files by that machine's folders."""
    place(tmp_path / "in", "img/a.jpg", "img/b b.jpg", "images/0123abcd-c.jpg")
    lines = [
        "Image Path,Choice",
        r"C:\Users\me\data\img\a.jpg,cat",
        r"img\b b.jpg,dog",
        "/data/upload/1/0123abcd-c.jpg,cat",
        "/data/upload/1/gone.jpg,cat",
    ]
    write(tmp_path / "in/labels.csv", "\n".join(lines))
    found, result = imported(store, tmp_path / "in")
    assert [found[name][0] for name in sorted(found)] == ["cat", "cat", "dog"]
    assert result.skipped == {"/data/upload/1/gone.jpg": "there is no such file"}


def test_a_picture_with_two_labels_in_a_table_is_listed(store: Store, tmp_path: Path) -> None:
    """A table of boxes has a line for each: one class is a label, two are none."""
    place(tmp_path, "a.jpg", "b.jpg")
    rows = "filename,class,xmin\na.jpg,cat,1\na.jpg,dog,2\nb.jpg,dog,1\nb.jpg,dog,5\n"
    found, result = imported(store, write(tmp_path / "labels.csv", rows))
    assert found == {"b.jpg": ("dog", "train")}
    assert result.skipped == {"a.jpg": "2 labels: cat, dog"}


def test_an_unknown_split_is_not_trained_on(store: Store, tmp_path: Path) -> None:
    """Where others are known; a column `set` about something else is not a split."""
    place(tmp_path, "a.jpg", "b.jpg")
    found, result = imported(
        store, write(tmp_path / "1.csv", "file,label,set\na.jpg,cat,tset\nb.jpg,dog,test\n")
    )
    assert found == {"b.jpg": ("dog", "gold")}
    assert "split 'tset' is unknown" in result.skipped["a.jpg"]
    found, result = imported(store, write(tmp_path / "2.csv", "file,label,set\na.jpg,cat,blue\n"))
    assert found["a.jpg"] == ("cat", "train")
    assert not result.skipped


def test_fiftyone(store: Store, tmp_path: Path) -> None:
    """FiftyOneImageClassificationDataset as FiftyOne writes it: numbers of classes, names, or objects."""
    place(tmp_path / "in/data", "a.jpg", "b.jpg", "c.jpg", "d.png")
    labels = {"a": 0, "b": 1, "c": None, "d": {"label": "cat", "confidence": 0.5}}
    write(tmp_path / "in/labels.json", {"classes": ["cat", "dog"], "labels": labels})
    found, result = imported(store, tmp_path / "in")
    assert {name: label for name, (label, _) in found.items()} == {
        "a.jpg": "cat",
        "b.jpg": "dog",
        "d.png": "cat",
    }
    assert result.skipped == {"c.jpg": "no label"}


def test_parquet_with_other_columns(store: Store, tmp_path: Path) -> None:
    """A single column of numbered classes has the labels; of several one must be named; lists."""

    def parquet(name: str, columns: dict[str, list[object]], classes: list[str]) -> Path:
        features = {column: {"names": ["cat", "dog"], "_type": "ClassLabel"} for column in classes}
        table = pa.table({"image": [jpeg(number) for number in range(4)]} | columns)
        about = {"huggingface": json.dumps({"info": {"features": features}})}
        pq.write_table(table.replace_schema_metadata(about), tmp_path / name)
        return tmp_path / name

    found, _ = imported(store, parquet("1.parquet", {"breed": [0, 1, 0, 1]}, ["breed"]))
    assert sorted(str(label) for label, _ in found.values()) == ["cat", "cat", "dog", "dog"]
    two = parquet("2.parquet", {"fine": [0] * 4, "coarse": [0] * 4}, ["fine", "coarse"])
    with pytest.raises(PermanentError, match="columns fine and coarse have classes; rename the one"):
        imported(store, two)
    listed = parquet("3.parquet", {"labels": [[1], [0, 1], [], [1, 1]]}, ["labels"])
    _, result = imported(store, listed)
    assert list(result.skipped.values()) == ["2 labels: cat, dog", "no label"]


def test_a_table_may_have_a_column_for_each_class(store: Store, tmp_path: Path) -> None:
    """As Roboflow's `_classes.csv` in each split: 1 is the class; with several or none it is listed."""
    folder = place(tmp_path / "in", "train/a.jpg", "train/b.jpg", "train/c.jpg", "train/d.jpg", "valid/e.jpg")
    write(
        folder / "train" / "_classes.csv",
        "filename, cat, big dog, 7\na.jpg, 1, 0, 0\nb.jpg, 0, 1, 0\nc.jpg, 1, 1, 0\nd.jpg, 0, 0, 0\n"
        "x.jpg, 0, 0, 1\n",
    )
    write(folder / "valid" / "_classes.csv", "filename, cat, big dog, 7\ne.jpg, 0, 0, 1\n")
    found, result = imported(store, folder)
    assert found == {
        "train/a.jpg": ("cat", "train"),
        "train/b.jpg": ("big dog", "train"),
        "valid/e.jpg": ("7", "gold"),
    }
    assert result.skipped["train/c.jpg"] == "2 labels: cat, big dog"
    assert result.skipped["train/d.jpg"] == "file train/d.jpg: no label"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("image,MEL,NV\na.jpg,1.0,0.0\nb.jpg,0.0,1.0\n", ["MEL", "NV"]),
        ("image;width;cat;dog;split\na.jpg;0;True;False;train\nb.jpg;40;False;True;test\n", ["cat", "dog"]),
        ("image,blurred,checked\na.jpg,0,0\nb.jpg,1,1\n", None),
        ("image,cat\na.jpg,1\nb.jpg,0\n", None),
        ("image,cat,dog\na.jpg,0.4,0.6\nb.jpg,0.9,0.1\n", None),
    ],
)
def test_columns_of_classes_have_one_mark_in_most_rows(
    tmp_path: Path, rows: str, expected: list[str] | None
) -> None:
    """Others are properties of the picture, or scores: no label."""
    place(tmp_path, "a.jpg", "b.jpg")
    table = write(tmp_path / "table.csv", rows)
    if expected is None:
        with pytest.raises(PermanentError, match="no column for labels"):
            csv_entries(table)
    else:
        assert [entry.label for entry in csv_entries(table) if isinstance(entry, Item)] == expected
