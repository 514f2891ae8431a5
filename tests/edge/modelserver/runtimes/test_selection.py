"""Which runtime loads a version, and what the user reads if it is not installed."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from schemas.litert import MANIFEST_FILE
from tests.conftest import DEADLINE_S

REPO = Path(__file__).parents[4]


def libraries(server: Any) -> str:
    return Path(f"/proc/{server.process.pid}/maps").read_text()


def test_auto_serves_a_version_with_litert_without_tensorflow(
    saved: dict[str, Path], place: Any, launch: Any, connect: Any, eventually: Any, tmp_path: Path
) -> None:
    """With a LiteRT part TensorFlow is not loaded; a later version without one is served by TensorFlow."""
    place(saved["half+2"], tmp_path, 1)
    server = launch(f"--model_base_path={tmp_path}", "--file_system_poll_wait_seconds=0.1", runtime="auto")
    client = connect(server.listening().port)
    assert client.half("default", [2.0]) == [3.0]
    assert "tensorflow" not in libraries(server)
    staged = tmp_path / "tmp-2"
    shutil.copytree(saved["half+3"], staged)
    (staged / MANIFEST_FILE).unlink()
    staged.rename(tmp_path / "2")
    eventually(lambda: client.half("default", [2.0]) == [4.0], "answers of version 2")
    assert "tensorflow" in libraries(server)


def test_litert_refuses_a_version_without_its_part(
    saved: dict[str, Path], launch: Any, tmp_path: Path
) -> None:
    """A version without a LiteRT part is not served, and the error suggests what to do."""
    shutil.copytree(saved["half+2"], tmp_path / "1")
    (tmp_path / "1" / MANIFEST_FILE).unlink()
    server = launch(f"--model_base_path={tmp_path}", "--max_num_load_retries=0", runtime="litert")
    error = server.wait_for("modelserver.start_failed")["error"]
    assert "has no LiteRT variant (assets.extra/litert.json): train the version again" in error
    assert server.process.wait(timeout=180) == 1


_WITHOUT = """
import importlib.util, sys
real = importlib.util.find_spec
def find_spec(name, package=None):
    return None if name in {hidden} else real(name, package)
importlib.util.find_spec = find_spec
from edge.modelserver import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("name", "hidden", "sentence"),
    [
        ("litert", ["ai_edge_litert"], "LiteRT is not installed; pip install"),
        ("tensorflow", ["tensorflow"], "TensorFlow is not installed; pip install"),
        ("auto", ["ai_edge_litert", "tensorflow"], "TensorFlow is not installed; pip install"),
    ],
)
def test_a_runtime_that_is_not_installed_is_named(
    name: str, hidden: list[str], sentence: str, tmp_path: Path
) -> None:
    """The server ends with code 1 and one line that names the package to install."""
    words = [f"--runtime={name}", f"--model_base_path={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT.format(hidden=hidden), *words],
        cwd=REPO, capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert f"modelserver: error: cannot start the model server: {sentence}" in done.stderr
    assert len(done.stderr.splitlines()) == 1
