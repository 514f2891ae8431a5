"""Other programs that read the dataset, as in `examples/dataset`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cloud.dataset.change_log import ChangeLog
from cloud.dataset.curation import forget_ids
from cloud.dataset.store import Label, Row, Store
from tests.conftest import ROOT
from tests.nodes import photo_id

UV = Path(sys.executable).with_name("uv")


def _environment(folder: Path, pinned: str) -> Path:
    """Make an environment with what `constraints/{pinned}.txt` names; return its Python."""
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    install = [
        UV,
        "pip",
        "install",
        "--quiet",
        "--require-hashes",
        "-r",
        ROOT / f"constraints/{pinned}.txt",
        "--python",
        folder / "bin/python",
    ]
    subprocess.run(install, check=True)
    return folder / "bin/python"


@pytest.fixture(scope="module")
def readers(tmp_path_factory) -> Path:
    """A Python with the readers of one process."""
    return _environment(tmp_path_factory.mktemp("readers") / "venv", "tables")


@pytest.fixture(scope="module")
def spark(tmp_path_factory) -> Path:
    """A Python with Spark, where Java is."""
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java 17: apt-get install openjdk-17-jre-headless")
    return _environment(tmp_path_factory.mktemp("spark") / "venv", "spark")


@pytest.mark.clients
@pytest.mark.parametrize(
    ("reader", "environment"),
    [("daft", "readers"), ("duckdb", "readers"), ("polars", "readers"), ("spark", "spark")],
)
def test_a_reader_counts_the_labels(request, reader, environment, tmp_path):
    """It sees photos and labels, and neither labels without a photo nor forgotten photos."""
    python = request.getfixturevalue(environment)
    store = Store.open(tmp_path / "dataset.lance")
    facts = {"image": b"x", "width": 1, "height": 1, "received_at_ms": 1}
    store.upsert([Row(photo_id=photo_id(number), **facts) for number in range(5)])
    labels = {0: "cat", 1: "cat", 2: "dog", 9: "dog"}
    store.label([Label(photo_id=photo_id(n), label=label, by="ann", at_ms=1) for n, label in labels.items()])
    forget_ids(store, ChangeLog.open(store.table.url), [photo_id(4)], "ann", detail="test")
    program = ROOT / f"examples/dataset/with_{reader}.py"
    done = subprocess.run(
        [python, program, store.table.url],
        env=os.environ | {"SPARK_LOCAL_IP": "127.0.0.1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "cat 2\ndog 1\nunlabelled 1\n"), done.stderr
