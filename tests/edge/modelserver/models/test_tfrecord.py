"""TFRecord files: TensorFlow's are read, damaged ones are refused."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from edge.modelserver.models.tfrecord import records
from edge.modelserver.status import Code, ServingError

RECORDS = [b"", b"a", b"photo" * 1000]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that TensorFlow wrote."""
    path = tmp_path_factory.mktemp("records") / "file"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in RECORDS:
            writer.write(record)
    return path


def test_records_of_tensorflow_are_read(file: Path) -> None:
    """The records that TensorFlow wrote are read, in order."""
    assert list(records(file)) == RECORDS


@given(data=st.data())
def test_any_damage_is_data_loss(
    file: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A flipped bit or a cut end anywhere is DATA_LOSS; what came before it is read."""
    content = bytearray(file.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del content[max(at, 1) :]
    damaged = tmp_path_factory.mktemp("damaged") / "file"
    damaged.write_bytes(content)
    read = []
    whole = content == file.read_bytes()[: len(content)] and len(content) in {16, 33}  # cut between two
    with nullcontext() if whole else pytest.raises(ServingError) as caught:
        read.extend(records(damaged))
    assert whole or caught.value.code is Code.DATA_LOSS
    assert read == RECORDS[: len(read)]
