"""What an operator reads when something of a deployment is missing or wrong."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.pods import doctor, site
from tests.pods.conftest import Note
from tests.pods.kubectl import until
from tests.pods.lab import PodLab

pytestmark = [pytest.mark.pods, pytest.mark.slow, pytest.mark.timeout(1800)]

_REFUSAL = "the broker's certificate is not valid for that host"


@pytest.mark.parametrize(
    ("what", "path", "value", "section", "says"),
    [
        (
            "missing image", "containers/0/image", "localhost/gleaner-edge:none",
            "Events:", "localhost/gleaner-edge:none",
        ),
        (
            "missing ConfigMap", "volumes/0/configMap/name", "nothing",
            "Last State:", "cannot read configuration /etc/gleaner-config/edge.toml: Is a directory",
        ),
    ],
    ids=["image", "ConfigMap"],
)  # fmt: skip
async def test_the_pods_description_names_what_is_missing(
    lab: PodLab, note: Note, what: str, path: str, value: str, section: str, says: str
) -> None:
    """`kubectl describe` names the image or the file, `gleaner doctor` the node without a handler.

    edged mounts a ConfigMap that does not exist as an empty one, without an event: the handler's own sentence
    is what tells. `kubectl rollout undo` repairs it.
    """
    change = [{"op": "replace", "path": f"/spec/template/spec/{path}", "value": value}]
    async with undone(lab, "daemonset/edge"):
        await lab.kubectl.run("patch", "daemonset/edge", "--type=json", "-p", json.dumps(change))
        described: list[str] = []

        async def named() -> bool:
            described[:] = [await lab.kubectl.run("describe", "pods", "-l", "app.kubernetes.io/name=edge")]
            return says in described[0].partition(section)[2]

        await until(named, f"a word about the {what}", told=lambda: described[0])
        line = next(line for line in described[0].partition(section)[2].splitlines() if says in line)
        note(f"{what}, kubectl describe", " ".join(line.split())[:150])
        found: list[str] = []

        async def diagnosed() -> bool:
            found[:] = [
                one
                for node in lab.joined
                for one in doctor.failures(await doctor.at_node(lab, node))
                if f"edge {node}: offline" in one
            ]
            return bool(found)

        await until(diagnosed, f"doctor's word about the {what}")
        note(f"{what}, gleaner doctor", found[0][:200])


async def test_a_wrong_secret_is_named_in_the_log(lab: PodLab, note: Note) -> None:
    """With another site's files the gateway reports that it refuses the broker's certificate."""
    strange = lab.folder / "lab/strange"
    site.provision(strange, list(lab.edges.values()))
    logs: list[str] = []
    try:
        site.store_secret(strange, lab.kubectl, "gateway")
        await lab.kubectl.run("rollout", "restart", "deployment/gateway")

        async def refused() -> bool:
            logs[:] = [await lab.kubectl.run("logs", "deployment/gateway", "--tail=20")]
            return _REFUSAL in logs[0]

        await until(refused, "the gateway's word about its certificate", told=lambda: logs[0][-1500:])
        line = next(line for line in logs[0].splitlines() if _REFUSAL in line)
        note("wrong Secret, the gateway's log", line[:200])
        found: list[str] = []

        async def diagnosed() -> bool:
            found[:] = [
                one for one in doctor.failures(await doctor.at_cloud(lab)) if "gateway of cloud" in one
            ]
            return bool(found)

        await until(diagnosed, "doctor's word about the gateway")
        note("wrong Secret, gleaner doctor", found[0][:200])
    finally:
        site.store_secret(lab.site, lab.kubectl, "gateway")
        await lab.kubectl.run("rollout", "restart", "deployment/gateway")
    await lab.ready(tuple(lab.joined))


@asynccontextmanager
async def undone(lab: PodLab, workload: str) -> AsyncIterator[None]:
    """Undo the latest change of a workload at the end of a block, and wait until all pods are ready."""
    try:
        yield
    finally:
        await lab.kubectl.run("rollout", "undo", workload)
    await lab.ready(tuple(lab.joined))
