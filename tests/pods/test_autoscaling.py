"""The autoscaler of collectors on a real control plane.

Its metric comes from a stand-in and no kubelet runs the pods, so a test says that they run.
"""

import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import yaml

from bus.observability.metric_catalogue import SAMPLES_WAITING
from tests.deploy.test_manifests import HERE
from tests.pods.conftest import Note
from tests.pods.control_plane import ControlPlane
from tests.pods.kubectl import Kubectl, Thing, until
from tests.pods.metrics_stand_in import MetricsStandIn
from tests.pods.programs import locate

pytestmark = [pytest.mark.pods, pytest.mark.slow, pytest.mark.timeout(900)]

NAMESPACE = "gleaner"
WINDOW_S = {"scaleUp": 0, "scaleDown": 3}
"""In place of the minutes that the component waits for."""


def overlay(folder: Path) -> list[Thing]:
    """Return the collector's StatefulSet and its autoscaler, as an overlay with the component has them."""
    wanted = {"resources": ["overlays/single-node"], "components": ["components/autoscaling"]}
    kustomization = {
        kind: [os.path.relpath(HERE / name, folder) for name in names] for kind, names in wanted.items()
    }
    (folder / "kustomization.yaml").write_text(json.dumps(kustomization), encoding="utf-8")
    built = Kubectl(folder / "none")("kustomize", folder)
    kinds = {"StatefulSet", "HorizontalPodAutoscaler"}
    things = [one for one in yaml.safe_load_all(built) if one and one["kind"] in kinds]
    return [one for one in things if one["metadata"]["name"] == "collector"]


class Collectors:
    """The StatefulSet and its autoscaler."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._kubectl = plane.kubectl

    async def pods(self) -> set[str]:
        """Return the names of the pods, and report all of them as running, as a kubelet would."""
        words = ("-n", NAMESPACE, "get", "pods", "-o", "json")
        found = json.loads(await self._kubectl.run(*words))["items"]
        for pod in found:
            if pod.get("status", {}).get("phase") != "Running":
                patch = json.dumps({"status": {"phase": "Running"}})
                name = pod["metadata"]["name"]
                await self._kubectl.run(
                    "-n", NAMESPACE, "patch", "pod", name, "--subresource=status", "-p", patch
                )
        return {pod["metadata"]["name"] for pod in found}

    async def condition(self, kind: str) -> tuple[str, str]:
        """Return status and reason of a condition of the autoscaler."""
        scaler = json.loads(await self._kubectl.run("-n", NAMESPACE, "get", "hpa", "collector", "-o", "json"))
        conditions = {one["type"]: one for one in scaler.get("status", {}).get("conditions", [])}
        found = conditions.get(kind, {})
        return found.get("status", ""), found.get("reason", "")

    async def become(self, *wanted: str) -> float:
        """Wait until these are the pods; return the seconds that it took."""
        began = time.monotonic()

        async def are() -> bool:
            return await self.pods() == set(wanted)

        await until(are, f"pods {wanted}", within_s=120, told=self._plane.told)
        return time.monotonic() - began

    async def reports(self, kind: str, status: str, reason: str) -> None:
        """Wait until the autoscaler has a condition."""

        async def does() -> bool:
            return await self.condition(kind) == (status, reason)

        await until(does, f"{kind} {status} {reason}", within_s=120, told=self._plane.told)


async def test_collectors_follow_the_samples_that_wait(tmp_path: Path, note: Note) -> None:
    """A second collector comes while samples wait, and goes when they do not; never a third.

    What is not measured changes nothing, nor does applying the manifests again.
    """
    if missing := locate().missing():
        pytest.skip(f"{', '.join(missing)} not built: run `make kubeedge-pods`, which needs Go")
    (tmp_path / "overlay").mkdir()
    (tmp_path / "plane").mkdir()
    metrics = MetricsStandIn(SAMPLES_WAITING.shown_name, NAMESPACE)
    things = overlay(tmp_path / "overlay")
    for thing in things:
        for direction, window_s in WINDOW_S.items() if thing["kind"] == "HorizontalPodAutoscaler" else ():
            thing["spec"]["behavior"][direction]["stabilizationWindowSeconds"] = window_s
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": things})
    async with metrics.running(tmp_path), ControlPlane(tmp_path / "plane", locate()) as plane:
        collectors = Collectors(plane)
        apply: Callable[[], object] = partial(plane.kubectl, "apply", "-f", "-", text=text)
        plane.kubectl("create", "namespace", NAMESPACE)
        plane.kubectl.apply(*metrics.objects())
        apply()
        await collectors.become("collector-2")
        metrics.values = {"collector-2": 10}
        await collectors.reports("ScalingActive", "True", "ValidMetricFound")
        metrics.values = {"collector-2": 900}
        note(
            "autoscaler: a second collector, s",
            f"{await collectors.become('collector-2', 'collector-3'):.1f}",
        )
        metrics.values = {"collector-2": 900, "collector-3": 900}
        await collectors.reports("ScalingLimited", "True", "TooManyReplicas")
        apply()
        assert await collectors.pods() == {"collector-2", "collector-3"}
        metrics.values = {}
        await collectors.reports("ScalingActive", "False", "FailedGetPodsMetric")
        assert await collectors.pods() == {"collector-2", "collector-3"}
        metrics.values = {"collector-2": 3, "collector-3": 0}
        note("autoscaler: one collector again, s", f"{await collectors.become('collector-2'):.1f}")
    assert metrics.asked == {"app.kubernetes.io/name=collector"}
