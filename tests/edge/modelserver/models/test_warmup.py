"""Warm-up records: run before a version serves; failures keep the old version."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from edge.modelserver.models import warmup
from edge.modelserver.models.servable import Servable
from edge.modelserver.runtimes.graph import TensorFlowRuntime


@pytest.fixture
def records(client: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A writer of warm-up files from the inputs of Predict requests."""

    def write(*inputs: dict[str, Any], times: int = 1) -> Path:
        file = tmp_path_factory.mktemp("warmup") / "records"
        with tf.io.TFRecordWriter(str(file)) as writer:
            for one in inputs * times:
                log = prediction_log_pb2.PredictionLog()
                log.predict_log.request.CopyFrom(client.request("any", one))
                writer.write(log.SerializeToString())
        return file

    return write


@pytest.mark.own_process
def test_records_are_run_before_the_version_serves(site: Any, server: Any, records: Any, jpeg: bytes) -> None:
    """The server runs every warm-up record of a new version and logs their number."""
    site.place("photo", 1, records({"image": [jpeg]}, {"image": [jpeg, jpeg]}))
    site.serve_as("warm")
    assert site.client.states("warm") == {1: "AVAILABLE"}
    warmed = server.wait_for('"model": "warm", "version": 1, "records": 2')
    assert warmed["event"] == "modelserver.warmed"


def test_a_failing_record_keeps_the_old_version(site: Any, records: Any, eventually: Any) -> None:
    """A version whose warm-up fails ends with the error; the old one serves until a good one comes."""
    site.place("half+2", 1)
    site.serve_as("cold")
    bad = site.place("half+3", 2, records({"x": [1.0]}, {"wrong": [1.0]}))
    status = eventually(
        lambda: (s := site.client.status("cold")) and s.get(2, "")[:1] == ("END",) and s, "version 2 given up"
    )
    assert status[1] == ("AVAILABLE", 0, "")
    assert status[2][1] == 3
    assert status[2][2].startswith("Signature input alias: x(feed name: serving_default_x:0) not found")
    assert site.client.half("cold", [2.0]) == [3.0]
    shutil.rmtree(bad)
    eventually(lambda: site.client.status("cold")[2] == ("END", 3, status[2][2]), "the failure on record")
    site.place("half+3", 3, records({"x": [1.0]}))
    eventually(lambda: site.client.states("cold") == {3: "AVAILABLE", 2: "END", 1: "END"}, "the good version")
    assert site.client.half("cold", [2.0]) == [4.0]


def _loaded(site: Any, version: int, file: Path) -> int:
    path = site.place("half+2", version, file)
    loaded = Servable("half", 1, TensorFlowRuntime().load(path))
    try:
        return warmup.warm_up(loaded, path)
    finally:
        loaded.close()


def test_at_most_a_thousand_records_are_run(site: Any, records: Any) -> None:
    """A thousand records are run; one more fails the load."""
    file = records({"x": [1.0]}, times=1000)
    assert _loaded(site, 1, file) == 1000
    with pytest.raises(Exception, match=r"Number of warmup records exceeds the maximum \(1000\) at "):
        _loaded(site, 2, records({"x": [1.0]}, times=1001))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"no TFRecord at all, but long enough",
            r"DATA_LOSS: .*Please verify your warmup data is in TFRecord",
        ),
        (None, "INVALID_ARGUMENT: Failed to parse warmup record: "),
    ],
)
def test_a_damaged_warmup_file_fails_the_load(
    site: Any, tmp_path_factory: pytest.TempPathFactory, content: bytes | None, message: str
) -> None:
    """A damaged file, or records that are not a PredictionLog, fail the load with the reason."""
    file = tmp_path_factory.mktemp("damaged") / "records"
    if content is None:
        with tf.io.TFRecordWriter(str(file)) as writer:
            writer.write(b"\xff\xff\xff")
    else:
        file.write_bytes(content)
    with pytest.raises(Exception, match=message):
        _loaded(site, 1, file)
