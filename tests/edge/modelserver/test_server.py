"""The process: how it starts, what it loads, and how it ends."""

import socket
from pathlib import Path
from typing import Any

import grpc
import pytest


def hold(client: Any, path: Path) -> Any:
    """Begin a request that runs until the file exists."""
    request = client.request("default", {"path": [str(path)]}, "held")
    return client.prediction.Predict.future(request, timeout=600)


def test_it_waits_for_its_model_and_finishes_requests_before_it_ends(
    site: Any, launch: Any, connect: Any, eventually: Any, tmp_path: Path
) -> None:
    """The port opens with the first version; after SIGTERM new requests are refused, running ones finish."""
    started = launch(f"--model_base_path={site.path}", "--file_system_poll_wait_seconds=0.1", grace_s=600)
    assert started.wait_for("modelserver.versions_missing")["reason"] == "no version directory"
    site.place("half+2", 4)
    client = connect(started.listening().port)
    assert client.half("default", [2.0]) == [3.0]
    request = hold(client, tmp_path / "go-on")
    eventually((tmp_path / "go-on.running").exists, "the request to run")
    started.process.terminate()
    started.wait_for("modelserver.stopping")
    eventually(lambda: refused(client), "new requests refused")
    assert not request.done()
    (tmp_path / "go-on").touch()
    assert list(request.result().outputs["found"].int_val) == [1]
    assert started.process.wait(timeout=180) == 0


def test_requests_are_cancelled_after_the_grace_period(
    site: Any, launch: Any, connect: Any, eventually: Any, tmp_path: Path
) -> None:
    """A request that outlasts the grace period is cancelled, and the process still ends with code 0."""
    site.place("half+2", 4)
    started = launch(f"--model_base_path={site.path}", grace_s=0.1)
    client = connect(started.listening().port)
    request = hold(client, tmp_path / "never")
    eventually((tmp_path / "never.running").exists, "the request to run")
    started.process.terminate()
    assert started.process.wait(timeout=180) == 0
    assert request.exception() is not None


def refused(client: Any) -> bool:
    try:
        client.half("default", [2.0])
    except grpc.RpcError as error:
        return error.code().name in {"UNAVAILABLE", "CANCELLED"}
    return False


def test_sigterm_ends_the_wait_for_a_model(launch: Any, tmp_path: Path) -> None:
    """A server whose base path is missing does not listen; SIGTERM ends it with code 0."""
    waiting = launch(f"--model_base_path={tmp_path / 'never'}")
    assert waiting.wait_for("modelserver.versions_missing")["reason"] == "No such file or directory"
    assert waiting.stop() == 0
    assert not any("modelserver.listening" in line for line in waiting.log)


def test_a_failed_start_is_logged(saved: Any, place: Any, launch: Any, tmp_path: Path) -> None:
    """A model that cannot be loaded or a port in use ends the process with code 1 and a logged reason."""
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
        assert broken.process.wait(timeout=180) == 1
        assert second.wait_for("modelserver.start_failed")["port"] == port
        assert second.process.wait(timeout=180) == 1


@pytest.mark.graph
@pytest.mark.own_process
def test_the_server_loads_no_more_of_tensorflow_than_it_needs(server: Any) -> None:
    """The server does not load Keras, whose dependency h5py would show among its libraries."""
    libraries = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "tensorflow" in libraries
    assert "h5py" not in libraries
    assert server.resident_bytes() < 700e6


def test_it_answers_on_a_unix_socket(site: Any, launch: Any, connect: Any, tmp_path: Path) -> None:
    """With --grpc_socket_path it answers there, also where an earlier run left its socket."""
    path = tmp_path / "grpc.sock"
    site.place("half+2", 4)
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(path))
    started = launch(f"--model_base_path={site.path}", f"--grpc_socket_path={path}", "--port=0")
    assert started.wait_for("modelserver.listening")["port"] is None
    assert connect(f"unix:{path}").half("default", [2.0]) == [3.0]
