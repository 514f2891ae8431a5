"""The RayJob: its objects against strict schemas, its command and versions against the code."""

import re
import shlex
from typing import Any

import kubernetes_validate
import pytest
import yaml

from cli.main import parser_of
from tests import crds
from tests.conftest import ROOT

HERE = ROOT / "deploy/ray"
KUBERNETES = "1.32"


@pytest.fixture(scope="module")
def objects() -> dict[str, Any]:
    """Its objects, by kind."""
    text = (HERE / "rayjob.yaml").read_text(encoding="utf-8")
    return {one["kind"]: one for one in yaml.safe_load_all(text)}


def test_the_command_exists(objects: dict[str, Any]) -> None:
    """The job's command has options of this version."""
    program, command, *words = shlex.split(objects["RayJob"]["spec"]["entrypoint"])
    arguments = parser_of(command)[0].parse_args(words)
    assert (program, arguments.command, arguments.ray) == ("gleaner", "teach", "auto")


def test_one_version_of_ray(objects: dict[str, Any]) -> None:
    """Ray is the same in the job, in the image and in the pinned versions: others do not connect."""
    pinned = re.search(
        r"^ray==(\S+)", (ROOT / "constraints/ray.txt").read_text(encoding="utf-8"), re.MULTILINE
    )
    image = re.search(r"^FROM rayproject/ray:(\S+)-py311$", (HERE / "Dockerfile").read_text(), re.MULTILINE)
    assert pinned is not None
    assert image is not None
    assert objects["RayJob"]["spec"]["rayClusterSpec"]["rayVersion"] == pinned[1] == image[1]


def test_objects_are_valid(objects: dict[str, Any]) -> None:
    """The volume claim and the pods of the job have no unknown fields."""
    kubernetes_validate.validate(objects["PersistentVolumeClaim"], KUBERNETES, strict=True)
    cluster = objects["RayJob"]["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray"}, **group["template"]}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


@pytest.mark.ray
def test_the_job_fits_the_crd_of_kuberay(objects: dict[str, Any]) -> None:
    """The job is valid and has no field that KubeRay's CRD does not know; `make test-ray` gets the CRD."""
    crds.check_by_source(objects["RayJob"], "GLEANER_KUBERAY", "config/crd/bases/ray.io_rayjobs.yaml")
