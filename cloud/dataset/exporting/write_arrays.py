"""Write exports with pictures inside: Parquet as Hugging Face reads it, and TFRecord."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cloud.dataset.exporting.photo import ExportedPhoto

_ROWS_PER_GROUP = 100
_TEXTS = ("photo_id", "label_source", "label_by", "origin")


def write_parquet(directory: Path, photos: Iterator[ExportedPhoto], classes: Sequence[str]) -> None:
    """Write `data/SPLIT-00000-of-00001.parquet` with the columns `image`, `label` and the label's sources.

    The names of the classes are in the metadata, so that `datasets.load_dataset` knows them.
    """
    schema = _schema(classes)
    numbers = {name: number for number, name in enumerate(classes)}
    waiting: defaultdict[str, list[dict[str, object]]] = defaultdict(list)
    writers: dict[str, pq.ParquetWriter] = {}
    (directory / "data").mkdir()
    with ExitStack() as stack:

        def flush(split: str) -> None:
            if split not in writers:
                path = directory / "data" / f"{split}-00000-of-00001.parquet"
                writers[split] = stack.enter_context(pq.ParquetWriter(path, schema))
            writers[split].write_table(pa.Table.from_pylist(waiting.pop(split), schema=schema))

        for photo in photos:
            facts = {name: photo.facts[name] for name in _TEXTS}
            image = {"bytes": photo.image, "path": photo.file_name}
            waiting[photo.split].append({"image": image, "label": numbers[photo.label]} | facts)
            if len(waiting[photo.split]) == _ROWS_PER_GROUP:
                flush(photo.split)
        for split in list(waiting):
            flush(split)


def _schema(classes: Sequence[str]) -> pa.Schema:
    features = {"image": {"_type": "Image"}, "label": {"names": list(classes), "_type": "ClassLabel"}}
    features |= {name: {"dtype": "string", "_type": "Value"} for name in _TEXTS}
    columns = [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("label", pa.int64()),
        *((name, pa.string()) for name in _TEXTS),
    ]
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema(columns, metadata=metadata)


def write_tfrecord(directory: Path, photos: Iterator[ExportedPhoto], classes: Sequence[str]) -> None:
    """Write `SPLIT.tfrecord` of tf.train.Example, and `classes.txt` with the names by number.

    Features: `image/encoded`, `image/width`, `image/height`, `image/class/label` (from 0),
    `image/class/text`, `label_source`, `label_by` and `photo_id`.
    """
    import tensorflow as tf  # noqa: PLC0415  # seconds to load, and for this format alone

    def text(value: str) -> object:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))

    def number(value: int) -> object:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    numbers = {name: number for number, name in enumerate(classes)}
    writers: dict[str, tf.io.TFRecordWriter] = {}
    with ExitStack() as stack:
        for photo in photos:
            if photo.split not in writers:
                path = str(directory / f"{photo.split}.tfrecord")
                writers[photo.split] = stack.enter_context(tf.io.TFRecordWriter(path))
            feature = {
                "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[photo.image])),
                "image/width": number(photo.width),
                "image/height": number(photo.height),
                "image/class/label": number(numbers[photo.label]),
                "image/class/text": text(photo.label),
                **{name: text(photo.facts[name]) for name in ("label_source", "label_by", "photo_id")},
            }
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            writers[photo.split].write(example.SerializeToString())
    (directory / "classes.txt").write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
