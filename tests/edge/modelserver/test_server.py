"""The process: how it starts, and how it ends."""

import os
import socket
from pathlib import Path
from typing import Any

import numpy as np


def test_sigterm_lets_requests_finish(
    saved: Any, place: Any, launch: Any, connect: Any, failure: Any, eventually: Any, tmp_path: Path
) -> None:
    """SIGTERM refuses new requests, answers those under way, and ends with code 0."""
    place(saved["half+2"], tmp_path, 1)
    started = launch(f"--model_base_path={tmp_path}").listening()
    client = connect(started.port)
    request = client.request("default", {"steps": np.array([40_000], np.int32)}, "slow")
    held = client.prediction.Predict.future(request, timeout=60)
    eventually(lambda: started.processor_s() and held.running(), "the long request under way")
    assert client.half("default", [2.0]) == [3.0]
    assert not held.done()
    started.process.terminate()
    started.wait_for("modelserver.stopping")
    assert held.result().outputs["last"].float_val
    assert started.process.wait(timeout=20) == 0
    assert failure(lambda: client.half("default", [2.0]))[0] == "UNAVAILABLE"


def test_the_stop_has_a_deadline(
    saved: Any, place: Any, launch: Any, connect: Any, failure: Any, eventually: Any, tmp_path: Path
) -> None:
    """A request that does not end is cancelled after the grace, and does not keep the process."""
    place(saved["half+2"], tmp_path, 1)
    started = launch(f"--model_base_path={tmp_path}").listening()
    client = connect(started.port)
    request = client.request("default", {"steps": np.array([2_000_000_000], np.int32)}, "slow")
    held = client.prediction.Predict.future(request, timeout=600)
    before_s = started.processor_s()
    eventually(lambda: started.processor_s() > before_s + 0.1, "the endless request under way")
    started.process.terminate()
    assert started.process.wait(timeout=20) == 0
    assert held.exception() is not None


def test_the_port_opens_when_the_model_serves(
    saved: Any, place: Any, launch: Any, connect: Any, tmp_path: Path
) -> None:
    """A server waits for the first version of its model; SIGTERM ends the wait too."""
    waiting = launch(f"--model_base_path={tmp_path / 'never'}")
    arriving = launch(f"--model_base_path={tmp_path}", "--file_system_poll_wait_seconds=0.1")
    assert "no" in arriving.wait_for("modelserver.no_versions")["reason"]
    place(saved["half+2"], tmp_path, 4)
    assert connect(arriving.listening().port).half("default", [2.0]) == [3.0]
    waiting.wait_for("modelserver.no_versions")
    assert waiting.stop() == 0
    assert not any("modelserver.listening" in line for line in waiting.log)
    assert arriving.stop() == 0


def test_a_server_that_cannot_start_says_why(
    saved: Any, place: Any, launch: Any, tmp_path: Path
) -> None:
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
    """Resident memory stays well below that of a process with all of TensorFlow (about 600 MB)."""
    assert server.resident_bytes() < 560e6
    libraries = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "tensorflow" in libraries
    assert "h5py" not in libraries, "expected no Keras: it is what loads h5py"
    assert os.path.isdir(f"/proc/{server.process.pid}")
