"""Warm-up records: run before a version serves, and what happens when one fails."""

import shutil
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def records(tf: Any, client: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A writer of warm-up files from the inputs of Predict requests."""
    from tensorflow_serving.apis import prediction_log_pb2

    def write(*inputs: dict[str, Any], times: int = 1) -> Path:
        file = tmp_path_factory.mktemp("warmup") / "records"
        with tf.io.TFRecordWriter(str(file)) as writer:
            for one in inputs * times:
                log = prediction_log_pb2.PredictionLog()
                log.predict_log.request.CopyFrom(client.request("any", one))
                writer.write(log.SerializeToString())
        return file

    return write


def test_records_are_run_before_the_version_serves(
    client: Any,
    server: Any,
    serve: Any,
    saved: Any,
    place: Any,
    entry: Any,
    records: Any,
    jpeg: bytes,
    tmp_path: Path,
) -> None:
    """The server runs every record of a new version, and says how many."""
    place(saved["photo"], tmp_path, 1, records({"image": [jpeg]}, {"image": [jpeg, jpeg]}))
    serve(entry("warm", tmp_path))
    assert client.states("warm") == {1: "AVAILABLE"}
    warmed = server.wait_for('"model": "warm", "version": 1, "records": 2')
    assert warmed["event"] == "modelserver.warmed"


def test_a_record_that_fails_keeps_the_old_version(
    client: Any, serve: Any, saved: Any, place: Any, entry: Any, records: Any, eventually: Any, tmp_path: Path
) -> None:
    """A version whose warm-up fails ends in END with the error; the old one serves on, and a good new
    directory of the same number is loaded after the bad one has gone.
    """
    place(saved["half+2"], tmp_path, 1)
    serve(entry("cold", tmp_path))
    bad = place(saved["half+3"], tmp_path, 2, records({"x": [1.0]}, {"wrong": [1.0]}))
    status = eventually(lambda: (s := client.status("cold")) and s.get(2, "")[:1] == ("END",) and s, "END")
    assert status[1] == ("AVAILABLE", 0, "")
    assert status[2][1] == 3
    assert status[2][2].startswith("Signature input alias: x(feed name: serving_default_x:0) not found")
    assert client.half("cold", [2.0]) == [3.0]
    shutil.rmtree(bad)
    eventually(lambda: client.status("cold")[2] == ("END", 3, status[2][2]), "the failure on record")
    place(saved["half+3"], tmp_path, 3, records({"x": [1.0]}))
    eventually(lambda: client.states("cold") == {3: "AVAILABLE", 2: "END", 1: "END"}, "the good version")
    assert client.half("cold", [2.0]) == [4.0]


def _loaded(saved: Any, place: Any, base_path: Path, file: Path) -> Any:
    from edge.modelserver import servable, warmup

    path = place(saved["half+2"], base_path, 1, file)
    loaded = servable.load("half", 1, path, servable.SessionOptions())
    try:
        return warmup.warm_up(loaded, path)
    finally:
        loaded.close()


def test_at_most_a_thousand_records_are_run(saved: Any, place: Any, records: Any, tmp_path: Path) -> None:
    """A thousand records are run; one more fails the load."""
    file = records({"x": [1.0]}, times=1000)
    (tmp_path / "a").mkdir()
    assert _loaded(saved, place, tmp_path / "a", file) == 1000
    (tmp_path / "b").mkdir()
    with pytest.raises(Exception, match=r"Number of warmup records exceeds the maximum \(1000\) at "):
        _loaded(saved, place, tmp_path / "b", records({"x": [1.0]}, times=1001))


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
def test_a_file_that_holds_no_records_fails_the_load(
    tf: Any, saved: Any, place: Any, tmp_path: Path, content: bytes | None, message: str
) -> None:
    """A damaged file, or records that are no PredictionLog, fail the load with the reason."""
    file = tmp_path / "records"
    if content is None:
        with tf.io.TFRecordWriter(str(file)) as writer:
            writer.write(b"\xff\xff\xff")
    else:
        file.write_bytes(content)
    with pytest.raises(Exception, match=message):
        _loaded(saved, place, tmp_path, file)
