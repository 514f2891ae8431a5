"""The process: how it starts, what it holds, and how it ends."""

import socket
from pathlib import Path
from typing import Any

import grpc
import numpy as np


def test_it_waits_for_its_model_and_finishes_requests_before_it_ends(
    site: Any, launch: Any, connect: Any, eventually: Any
) -> None:
    """The port opens with the first version; SIGTERM lets requests end, but not for ever; the code is 0."""
    started = launch(f"--model_base_path={site.path}", "--file_system_poll_wait_seconds=0.1")
    assert started.wait_for("modelserver.no_versions")["reason"] == "it holds no version directory"
    site.place("half+2", 4)
    client = connect(started.listening().port)
    assert client.half("default", [2.0]) == [3.0]
    finite, endless = (
        client.prediction.Predict.future(
            client.request("default", {"steps": np.array([steps], np.int32)}, "slow"), timeout=600
        )
        for steps in (60_000, 2_000_000_000)
    )
    before_s = started.processor_s()
    eventually(lambda: started.processor_s() > before_s + 0.1, "the long requests under way")
    assert not finite.done()
    started.process.terminate()
    started.wait_for("modelserver.stopping")
    eventually(lambda: refused(client), "new requests refused")
    assert finite.result().outputs["last"].float_val
    assert started.process.wait(timeout=20) == 0
    assert endless.exception() is not None


def refused(client: Any) -> bool:
    try:
        client.half("default", [2.0])
    except grpc.RpcError as error:
        return error.code().name in {"UNAVAILABLE", "CANCELLED"}
    return False


def test_sigterm_ends_the_wait_for_a_model(launch: Any, tmp_path: Path) -> None:
    """A server whose base path is missing waits without a port, and SIGTERM ends it with code 0."""
    waiting = launch(f"--model_base_path={tmp_path / 'never'}")
    assert waiting.wait_for("modelserver.no_versions")["reason"] == "No such file or directory"
    assert waiting.stop() == 0
    assert not any("modelserver.listening" in line for line in waiting.log)


def test_a_server_that_cannot_start_says_why(saved: Any, place: Any, launch: Any, tmp_path: Path) -> None:
    """A model that cannot be loaded, and a port that is taken, end the process with code 1 and the reason."""
    (tmp_path / "broken" / "1").mkdir(parents=True)
    (tmp_path / "good").mkdir()
    place(saved["half+2"], tmp_path / "good", 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        broken = launch(f"--model_base_path={tmp_path / 'broken'}", "--max_num_load_retries=0")
        second = launch(f"--model_base_path={tmp_path / 'good'}", f"--port={port}")
        error = broken.wait_for("modelserver.start_failed")["error"]
        assert error.startswith("UNKNOWN: 1 model(s) did not become available: {{{name: default version: 1}")
        assert broken.process.wait(timeout=20) == 1
        assert second.wait_for("modelserver.start_failed")["port"] == port
        assert second.process.wait(timeout=20) == 1


def test_the_server_loads_no_more_of_tensorflow_than_it_needs(server: Any) -> None:
    """A server that only serves loads no Keras, whose h5py would be among its libraries."""
    libraries = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "tensorflow" in libraries
    assert "h5py" not in libraries
    assert server.resident_bytes() < 700e6
