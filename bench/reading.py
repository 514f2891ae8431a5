"""Measure how fast a training reads photos: `python -m bench.reading FOLDER PHOTOS REPEATS` prints JSON.

The same photos with their labels are read in batches from the Lance table, from a folder of files and from a
TFRecord file, with a warm page cache. It is a separate process because it loads TensorFlow.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import tensorflow as tf

from bench.photos import pictures
from cloud.dataset.schema import Row
from cloud.dataset.store import Store

TABLE, FILES, TFRECORD = "our table", "folder of files", "TFRecord"
_BATCH = 32
_CLASSES = ("cat", "dog")
_FEATURES = {"image": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.string)}

Batches = Iterator[list[tuple[bytes, str]]]


def _write(folder: Path, count: int) -> None:
    """Write the photos in all three formats."""
    images = pictures(min(count, 256))
    store = Store.open(folder / "dataset.lance")
    for name in _CLASSES:
        (folder / "files" / name).mkdir(parents=True)
    with tf.io.TFRecordWriter(str(folder / "photos.tfrecord")) as records:
        for start in range(0, count, 256):
            rows = []
            for number in range(start, min(start + 256, count)):
                image, label = images[number % len(images)], _CLASSES[number % 2]
                rows.append(_row(number, image, label))
                (folder / "files" / label / f"{number}.jpg").write_bytes(image)
                facts = {"image": image, "label": label.encode()}
                features = {
                    key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
                    for key, value in facts.items()
                }
                example = tf.train.Example(features=tf.train.Features(feature=features))
                records.write(example.SerializeToString())
            store.upsert(rows)
    store.table.compact()


def _row(number: int, image: bytes, label: str) -> Row:
    return Row(
        photo_id=f"{number:032x}",
        image=image,
        width=640,
        height=480,
        received_at_ms=1,
        human_label=label,
        human_by="bench",
        human_at_ms=1,
        split="train",
        origin="import",
    )


def _from_table(folder: Path) -> Batches:
    rows = Store.open(folder / "dataset.lance").scan(["image", "human_label"])
    batch = []
    for row in rows:
        image, label = row["image"], row["human_label"]
        assert isinstance(image, bytes)
        batch.append((image, str(label)))
        if len(batch) == _BATCH:
            yield batch
            batch = []
    yield batch


def _from_files(folder: Path) -> Batches:
    paths = sorted((folder / "files").rglob("*.jpg"))
    for start in range(0, len(paths), _BATCH):
        yield [(path.read_bytes(), path.parent.name) for path in paths[start : start + _BATCH]]


def _from_records(folder: Path) -> Batches:
    records = tf.data.TFRecordDataset(str(folder / "photos.tfrecord")).batch(_BATCH)
    for batch in records.map(lambda encoded: tf.io.parse_example(encoded, _FEATURES)).prefetch(2):
        yield list(zip(batch["image"].numpy(), batch["label"].numpy(), strict=True))


WAYS: dict[str, Callable[[Path], Batches]] = {
    FILES: _from_files,
    TABLE: _from_table,
    TFRECORD: _from_records,
}


def main() -> None:
    """Write the photos, then read each format in turn."""
    folder, count, repeats = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    _write(folder, count)
    per_s: dict[str, list[float]] = {name: [] for name in WAYS}
    for repeat in range(repeats + 1):
        for name, way in WAYS.items():
            started_at = time.perf_counter()
            read = sum(len(batch) for batch in way(folder))
            assert read == count, f"{name}: read {read} of {count} photos"
            if repeat:  # the first repeat warms the cache
                per_s[name].append(count / (time.perf_counter() - started_at))
    print(json.dumps(per_s))


if __name__ == "__main__":
    main()
