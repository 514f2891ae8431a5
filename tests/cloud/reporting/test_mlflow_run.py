"""Versions in MLflow, on a real tracking server from its own environment."""

import json
import os
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
from msgspec import structs

from bus.broker.process import free_port
from cloud.evaluation.metrics import measure
from cloud.evaluation.promotion_gate import Verdict
from cloud.registry.model_card import Candidate
from cloud.registry.registry import Registry
from cloud.reporting.mlflow_run import TRACKING_VARIABLE, record_version
from tests.cached_environment import programs
from tests.cloud.bundles import CLASSES, bundle, card
from tests.conftest import ROOT

START_S = 300.0  # only ends a hang
RECORD = """
import sys
from pathlib import Path
from cloud.registry.registry import Registry
from cloud.reporting.mlflow_run import record_version
print("run", record_version(Registry(Path(sys.argv[1])), int(sys.argv[2])))
"""


@pytest.fixture(scope="session")
def python() -> Path:
    """The Python of an environment with MLflow, which would bring other versions of our packages."""
    return programs("mlflow-server", shown="MLflow") / "python"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Version 1, promoted, and version 2, kept back by the gate."""
    registry = Registry(tmp_path / "models")
    metrics = measure(np.eye(2)[[0, 1, 1, 1]], np.array([0, 1, 0, 1]), CLASSES)
    for version, decision in ((1, None), (2, "keep")):
        verdict = None if decision is None else Verdict("keep", 1, ["worse"], None, None, None)
        directory = registry.version_dir(version)
        (directory / "assets.extra").mkdir(parents=True)
        described = structs.replace(
            card(version, verdict),
            metrics=metrics,
            parent=None if version == 1 else 1,
            dataset_version=5,
            examples_used={"cat": {"human": 3}},
            candidates=[Candidate("human", 3, 3, 0.5, 0.75, 0.75)],
        )
        registry.write_card(described)
        registry.write_report("<html></html>", directory)
        bundle(registry.folder, version)
    return registry


@pytest.fixture
def server(python: Path, tmp_path: Path) -> Iterator[str]:
    """A tracking server on loopback, with its database and artefacts in a folder."""
    port = free_port()
    command = [
        python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db",
        "--artifacts-destination", str(tmp_path / "artifacts"),
    ]  # fmt: skip
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + START_S
        try:
            while not is_healthy(url):
                assert process.poll() is None, (tmp_path / "server.log").read_text()[-2000:]
                assert time.monotonic() < deadline, "the server did not start"
                time.sleep(0.2)
            yield url
        finally:
            os.killpg(process.pid, 15)  # its workers too: the session is its own
            process.wait()


def is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def get(url: str, path: str, **query: str) -> Any:
    address = f"{url}/api/2.0/mlflow/{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(address, timeout=30) as answer:
        return json.loads(answer.read())


def record(python: Path, registry: Registry, version: int, url: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), TRACKING_VARIABLE: url}
    return subprocess.run(
        [python, "-c", RECORD, str(registry.folder), str(version)],
        env=environment, capture_output=True, text=True, timeout=START_S, check=True,
    )  # fmt: skip


@pytest.mark.mlflow
def test_versions_are_recorded(python: Path, registry: Registry, server: str) -> None:
    """Run, parameters, metrics, artefacts, lineage and the model registry; the gate moves the champion."""
    for version in (1, 2):
        run_id = record(python, registry, version, server).stdout.split()[-1]
        run = get(server, "runs/get", run_id=run_id)["run"]
        parameters = {one["key"]: one["value"] for one in run["data"]["params"]}
        metrics = {one["key"]: one["value"] for one in run["data"]["metrics"]}
        tags = {one["key"]: one["value"] for one in run["data"]["tags"]}
        assert run["info"]["status"] == "FINISHED"
        assert (parameters["classes"], parameters["photos_used"]) == ("cat, dog", "3")
        assert metrics["gold_accuracy"] == pytest.approx(0.75)
        assert metrics["gold_recall_1"] == pytest.approx(1.0)
        assert metrics["held_out_loss"] == pytest.approx(0.5)
        assert (tags["gleaner.dataset_version"], tags.get("gleaner.parent")) == (
            "5",
            {1: None, 2: "1"}[version],
        )
        files = {one["path"] for one in get(server, "artifacts/list", run_id=run_id)["files"]}
        assert files == {"report.html", "model.json", f"{version}.tar"}
    model = get(server, "registered-models/get", name="gleaner")["registered_model"]
    assert [(alias["alias"], alias["version"]) for alias in model["aliases"]] == [("champion", "1")]
    newest = get(server, "model-versions/get", name="gleaner", version="2")["model_version"]
    assert newest["source"].endswith("/2.tar")


@pytest.mark.mlflow
def test_a_server_that_is_down_costs_no_version(python: Path, registry: Registry) -> None:
    """The reason is logged, and the call ends."""
    done = record(python, registry, 1, f"http://127.0.0.1:{free_port()}")
    assert "run None" in done.stdout
    assert "training.not_recorded" in done.stdout + done.stderr


def test_without_a_tracking_server_nothing_is_recorded(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow is not even imported."""
    monkeypatch.delenv(TRACKING_VARIABLE, raising=False)
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)  # an import would fail
    with structlog.testing.capture_logs() as logs:
        assert record_version(registry, 1) is None
    assert logs == []


def test_a_missing_package_is_named(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it; the version stands."""
    monkeypatch.setenv(TRACKING_VARIABLE, "http://127.0.0.1:1")
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    with structlog.testing.capture_logs() as logs:
        assert record_version(registry, 1) is None
    assert [(entry["event"], entry["version"]) for entry in logs] == [("training.not_recorded", 1)]
    assert "[mlflow]" in logs[0]["hint"]
