import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import DEADLINE_S, ROOT
from tests.nodes import NODE, Observer, edge_config, enveloped, photo, photo_id, toml
from tests.serving import ModelServer, place

MOST_MB = 200
BUILD_S = 1800


@pytest.fixture(scope="session")
def edge_tree(tmp_path_factory) -> Path:
    """The files of the edge's image, without Python, built by the script that builds the image."""
    folder = tmp_path_factory.mktemp("image") / "tree"
    installed = sysconfig.get_paths()["purelib"]  # spares TensorFlow's wheel of 600 MB
    done = subprocess.run(
        ["sh", "deploy/images/tree.sh", "edge", str(folder), installed],
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
        ("device", ("device", "usb")),
        ("edge", ("edge",)),
        ("modelserver", ("modelserver",)),
        ("gateway", ("gateway",)),
        ("cloud", ("cloud", "s3")),
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
    """The installed files of the edge are under 200 MB; of TensorFlow there are only message files."""
    files = [path for path in edge_tree.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MOST_MB * 1_000_000
    of_tensorflow = list((edge_tree / "tensorflow").rglob("*.py"))
    assert of_tensorflow
    assert sum(path.stat().st_size for path in of_tensorflow) < 1_000_000
    assert not (edge_tree / "numpy").exists()


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
    assert folders - {wheel.name[: wheel.name.index("-py3")] + ".dist-info"} == {
        "bus",
        "cli",
        "cloud",
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
    command = [sys.executable, "-S", "-m", "cli.main", *words]
    with (folder / "handler.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env={"PYTHONPATH": str(tree)}, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
