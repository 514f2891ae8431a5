"""The TFJob: its objects against strict schemas, and its command against the code."""

from typing import Any

import kubernetes_validate
import pytest
import yaml

from cli.main import parser_of
from tests import crds
from tests.conftest import ROOT

KUBERNETES = "1.32"


@pytest.fixture(scope="module")
def objects() -> list[dict[str, Any]]:
    """Its objects, the job last."""
    return list(yaml.safe_load_all((ROOT / "deploy/kubeflow/tfjob.yaml").read_text(encoding="utf-8")))


def worker(objects: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the replicas of the job."""
    replicas: dict[str, Any] = objects[-1]["spec"]["tfReplicaSpecs"]["Worker"]
    return replicas


def test_the_command_exists(objects: list[dict[str, Any]]) -> None:
    """It has options of this version; each worker has a cache of its own, which outlives its container."""
    (container,) = worker(objects)["template"]["spec"]["containers"]
    command, *words = container["args"]
    arguments = parser_of(command)[0].parse_args(words)
    assert arguments.command == "train"
    assert str(arguments.cache).endswith("/$(POD)")
    assert container["name"] == "tensorflow"


def test_a_lost_worker_is_no_permanent_failure(objects: list[dict[str, Any]]) -> None:
    """The others end with 75 (tests/cloud/training/test_distributed.py), which `ExitCode` takes for final."""
    assert worker(objects)["restartPolicy"] == "OnFailure"


def test_objects_are_valid(objects: list[dict[str, Any]]) -> None:
    """The volume claims and the pods of the job have no unknown fields."""
    for claim in objects[:-1]:
        kubernetes_validate.validate(claim, KUBERNETES, strict=True)
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "worker"}, **worker(objects)["template"]}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)


@pytest.mark.ray
def test_the_job_fits_the_crd_of_the_training_operator(objects: list[dict[str, Any]]) -> None:
    """It is valid and has no field that Kubeflow's CRD does not know; `make test-ray` gets the CRD."""
    crds.check_by_source(
        objects[-1], "GLEANER_TRAINING_OPERATOR", "manifests/base/crds/kubeflow.org_tfjobs.yaml"
    )
