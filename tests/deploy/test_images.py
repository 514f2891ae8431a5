import asyncio
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bus.broker.process import free_port, is_listening
from edge.serving.client import Predictor
from tests.conftest import DEADLINE_S, ROOT
from tests.nodes import NODE, Observer, edge_config, enveloped, photo, photo_id, toml
from tests.serving import ModelServer, place

MOST_MB = 120
MOST_LITERT_MB = 200
MOST_TENSORFLOW_MB = 1450
BUILD_S = 1800
CLEAR = 0.9


@pytest.fixture(scope="session")
def edge_tree(tmp_path_factory) -> Path:
    """The files of the edge's image, without Python, built by the script that builds the image."""
    return tree_of("edge", tmp_path_factory.mktemp("image") / "tree")


def tree_of(side: str, folder: Path) -> Path:
    """Install a side into a folder, as its image does."""
    done = subprocess.run(
        ["sh", "deploy/images/tree.sh", side, str(folder)],
        cwd=ROOT,
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=BUILD_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.mark.parametrize(
    ("side", "extras"),
    [
        ("device", ("device", "http")),
        ("device-all", ("device", "usb", "http", "heic")),
        ("edge", ("edge",)),
        ("modelserver", ("modelserver",)),
        ("litert", ("litert",)),
        ("gateway", ("gateway",)),
        ("cloud", ("cloud", "s3")),
        ("console", ("console",)),
    ],
)
def test_the_pins_of_an_image_are_those_of_its_side(side, extras):
    """Each package of a side is pinned with its digest; the edge has no TensorFlow."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    by_extra = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(one for extra in extras for one in by_extra[extra])]
    names = {re.split(r"[<>=\[ ]", one)[0] for one in wanted}
    text = (ROOT / f"constraints/{side}.txt").read_text()
    pinned = set(re.findall(r"^([a-z0-9-]+)(?:\[.*\])?==\S+ .*\\\n    --hash", text, re.MULTILINE))
    assert names <= pinned
    assert ("tensorflow" in pinned) == (side in ("modelserver", "cloud"))


@pytest.fixture
def model_server(tmp_path) -> Iterator[ModelServer]:
    place("straight", tmp_path / "models/pets", 1)
    server = ModelServer(tmp_path / "models", "pets")
    server.start()
    yield server
    server.kill()


@pytest.mark.slow
@pytest.mark.timeout(BUILD_S + 120)
def test_the_edge_image_is_small_and_has_no_tensorflow(edge_tree):
    """The installed files of the edge are under 120 MB; nothing of TensorFlow is among them."""
    files = [path for path in edge_tree.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MOST_MB * 1_000_000
    assert not (edge_tree / "tensorflow").exists()
    assert not (edge_tree / "numpy").exists()


@pytest.mark.slow
@pytest.mark.timeout(BUILD_S + 120)
def test_the_light_model_server_runs_from_its_image(tmp_path):
    """The installed files are under 200 MB, have nothing of TensorFlow, and are all that the server needs."""
    tree = tree_of("litert", tmp_path / "tree")
    files = [path for path in tree.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MOST_LITERT_MB * 1_000_000
    assert not (tree / "tensorflow").exists()
    (tmp_path / "models/1").mkdir(parents=True)
    words = ("--port=0", f"--model_base_path={tmp_path / 'models'}", "--max_num_load_retries=0")
    with running_from(tree, tmp_path, "modelserver", *words) as server:
        assert server.wait(DEADLINE_S) == 1
    log = (tmp_path / "handler.log").read_text()
    assert "and TensorFlow is not installed: train the version again" in log
    assert "Traceback" not in log


@pytest.mark.images
@pytest.mark.timeout(BUILD_S + 300)
async def test_the_model_server_with_tensorflow_answers_from_its_image(tmp_path):
    """The installed files, without headers, tests and symbols, are under 1450 MB and serve a SavedModel."""
    tree = tree_of("modelserver", tmp_path / "tree")
    files = [path for path in tree.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MOST_TENSORFLOW_MB * 1_000_000
    place("straight", tmp_path / "models/pets", 1)
    port = free_port()
    words = (f"--port={port}", "--model_name=pets", f"--model_base_path={tmp_path / 'models/pets'}")
    with running_from(tree, tmp_path, "modelserver", *words) as server:
        while not is_listening(port):
            assert server.poll() is None, (tmp_path / "handler.log").read_text()[-2000:]
            await asyncio.sleep(0.05)
        async with Predictor(f"127.0.0.1:{port}", "pets", timeout_s=DEADLINE_S) as predictor:
            output = await predictor.predict([photo(1, "red"), photo(2, "blue")])
    assert [row[0] > CLEAR for row in output.probabilities] == [True, False]


def test_the_wheel_has_no_demonstration(tmp_path):
    """The installed files of each side are without the demonstration and its synthetic photos."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        folders = {name.partition("/")[0] for name in archive.namelist()}
        packages = {name.split("/")[1] for name in archive.namelist() if name.startswith("gleaner/")}
    about = wheel.name[: wheel.name.index("-py3")]
    assert folders - {f"{about}.dist-info", f"{about}.data"} == {"gleaner"}
    assert {name for name in packages if "." not in name} == {
        "bus",
        "cli",
        "cloud",
        "console",
        "device",
        "edge",
        "schemas",
    }


@pytest.mark.slow
@pytest.mark.timeout(BUILD_S + 120)
async def test_a_handler_from_the_edge_image_classifies_a_photo(edge_tree, address, model_server, tmp_path):
    """The tree without this environment's packages classifies photos over MQTT and gRPC."""
    config = edge_config(address, model_server.address, tmp_path, models_dir=str(model_server.base))
    words = ("edge", "--config", str(toml(config, tmp_path / "edge.toml")))
    with running_from(edge_tree, tmp_path, *words) as handler:
        async with Observer(address).watching() as devices:
            await devices.status("online")
            await devices.send(enveloped(1, photo(1, "blue")))
            answer = await devices.answer(photo_id(1))
        handler.terminate()
        assert handler.wait(DEADLINE_S) == 0, (tmp_path / "handler.log").read_text()[-2000:]
    assert (answer.node, answer.label) == (NODE, "dog")


@contextmanager
def running_from(tree: Path, folder: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command with only a tree and Python's standard library."""
    command = [sys.executable, "-S", "-P", "-m", "gleaner", *words]
    with (folder / "handler.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env={"PYTHONPATH": str(tree)}, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
