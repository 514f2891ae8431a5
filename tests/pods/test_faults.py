"""Containers, edgecore, network, power and cloud fail: photos are answered, samples arrive once."""

import asyncio
import time
from collections.abc import Callable
from functools import partial

import pytest

from tests.pods import runtime
from tests.pods.conftest import FIRST, Load, Note
from tests.pods.edge import Edge
from tests.pods.kubectl import until
from tests.pods.lab import PodLab
from tests.pods.pod import Pod

pytestmark = [pytest.mark.pods, pytest.mark.slow, pytest.mark.timeout(1800)]

CONTAINERS = (("edge", "handler"), ("edge", "serving"), ("edge-broker", "mosquitto"))
AWAY_S = 120.0
_FILES = {
    ("edge", "handler"): ("/etc/gleaner-config/edge.toml", "/run/serving/grpc.sock"),
    ("edge", "serving"): ("/run/serving/grpc.sock",),
    ("edge-broker", "mosquitto"): ("/etc/mosquitto/mosquitto.conf",),
}
# Another process takes more than the limit in the container's cgroup. The kernel kills the handler first.
_EXCEED = """
group=$(sed -n 's/^[0-9]*:memory://p' /proc/$1/cgroup)
echo 1000 >/proc/$1/oom_score_adj
echo $$ >/sys/fs/cgroup/memory$group/cgroup.procs
exec python3 -c 'x = bytearray(900_000_000)'
"""


async def pod_at(lab: PodLab, node: str, app: str) -> Pod:
    """Return the pod of a workload at a node."""
    (found,) = [pod for pod in await lab.pods() if (pod.app, pod.node) == (app, node) and not pod.ending]
    return found


async def process_of(lab: PodLab, node: str, app: str, name: str) -> int:
    """Return the process id, on the machine, of a container's first process."""
    pod = await pod_at(lab, node, app)
    return await asyncio.to_thread(runtime.container_process, lab.edges[node].machine, pod.name, name)


async def kill_container(lab: PodLab, node: str, app: str, name: str) -> None:
    """Kill the first process of a container."""
    pid = await process_of(lab, node, app, name)
    await asyncio.to_thread(lab.edges[node].machine.run, "kill", "-9", str(pid))


async def test_killed_containers_come_back(lab: PodLab, load: Load, note: Note) -> None:
    """Handler, model server and broker are killed, one by one and all at once: answers continue."""
    async with load("containers killed") as cameras:
        for app, name in CONTAINERS:
            await kill_container(lab, FIRST, app, name)
            note(f"{name} killed: next results after", f"{await cameras.answers(2):.1f} s")
            await lab.ready(tuple(lab.joined))
        await asyncio.gather(*(kill_container(lab, FIRST, app, name) for app, name in CONTAINERS))
        note("all three killed at once: next results after", f"{await cameras.answers(2):.1f} s")
        await lab.ready(tuple(lab.joined))


async def test_a_handler_above_its_memory_limit_is_killed_and_comes_back(
    lab: PodLab, load: Load, note: Note
) -> None:
    """The kernel kills it, Kubernetes reports OOMKilled, and photos continue."""
    async with load("memory limit") as cameras:
        machine, pid = lab.edges[FIRST].machine, await process_of(lab, FIRST, "edge", "handler")
        await asyncio.to_thread(machine.run, "sh", "-c", _EXCEED, "sh", str(pid), check=False)
        note("memory limit: next results after", f"{await cameras.answers(2):.1f} s")
        await until(partial(_says, lab, "OOMKilled"), "the reason OOMKilled")
        await lab.ready(tuple(lab.joined))


async def test_a_restart_of_edgecore_takes_nothing_from_its_pods(lab: PodLab, load: Load, note: Note) -> None:
    """Edgecore is stopped and killed: configuration, /tmp and socket stay in the running pods."""
    edge = lab.edges[FIRST]
    async with load("edgecore restarted") as cameras:
        for how in (edge.edgecore.stop, edge.edgecore.kill):
            await restart(edge, how)
            await lab.cloud.node_ready(FIRST)
            await check_files(lab)
            note(f"edgecore {how.__name__}: next results after", f"{await cameras.answers(2):.1f} s")
        # A socket in an emptyDir was lost only when a container was restarted afterwards.
        for app, name in CONTAINERS:
            await kill_container(lab, FIRST, app, name)
            await cameras.answers(2)
        await lab.ready(tuple(lab.joined))


async def test_a_cut_network_and_edgecore_restarted_offline(lab: PodLab, load: Load, note: Note) -> None:
    """Without the cloud answers continue and samples wait, also when edgecore restarts."""
    edge = lab.edges[FIRST]
    async with load("network cut") as cameras:
        edge.machine.unplug()
        try:
            first = await cameras.keep_answering(AWAY_S / 2)
            await restart(edge, edge.edgecore.kill)
            note("edgecore killed offline: next results after", f"{await cameras.answers(2):.1f} s")
            second = await cameras.keep_answering(AWAY_S / 2)
            note(f"network cut for {AWAY_S:.0f} s: longest wait for a result", f"{max(first, second):.1f} s")
        finally:
            edge.machine.replug()
        began = time.monotonic()
        await lab.cloud.node_ready(FIRST)
        note("network back: node ready after", f"{time.monotonic() - began:.0f} s")


async def test_a_power_cut_and_a_boot_without_the_cloud(lab: PodLab, load: Load, note: Note) -> None:
    """A node that boots without the cloud starts its pods from what edgecore keeps."""
    async with load("power cut") as cameras:
        began = time.monotonic()
        await lab.power_cut(FIRST, plugged_in=False)
        try:
            note(
                "booted without the cloud: next results after",
                f"{await cameras.answers(4, within_s=300):.1f} s",
            )
            note("booted without the cloud: from power cut to results", f"{time.monotonic() - began:.0f} s")
        finally:
            lab.edges[FIRST].machine.replug()
        await lab.cloud.node_ready(FIRST)


async def test_cloudcore_and_api_server_away(lab: PodLab, load: Load, note: Note) -> None:
    """The control plane is away: answers continue, and samples arrive once it is back."""
    cloud = lab.cloud
    async with load("cloud away") as cameras:
        for service in (cloud.cloudcore, cloud.apiserver):
            await asyncio.to_thread(service.kill)
        longest = await cameras.keep_answering(AWAY_S)
        note(f"cloud away for {AWAY_S:.0f} s: longest wait for a result", f"{longest:.1f} s")
        await asyncio.to_thread(cloud.apiserver.start)
        await cloud.answers()
        await asyncio.to_thread(cloud.cloudcore.start)
        began = time.monotonic()
        await cloud.node_ready(FIRST)
        note("cloud back: node ready after", f"{time.monotonic() - began:.0f} s")


async def _says(lab: PodLab, reason: str) -> bool:
    """Return True if Kubernetes has this reason for the last end of a handler."""
    path = "jsonpath={.items[*].status.containerStatuses[?(@.name=='handler')].lastState.terminated.reason}"
    selector = "app.kubernetes.io/name=edge"
    return reason in (await lab.kubectl.run("get", "pods", "-l", selector, "-o", path)).split()


async def restart(edge: Edge, how: Callable[[], None]) -> None:
    """End edgecore, start it, and wait until edged compares its volumes with its pods."""
    await asyncio.to_thread(how)
    before = edge.volume_starts()
    await asyncio.to_thread(edge.edgecore.start)

    async def compares() -> bool:
        return edge.volume_starts() > before

    await until(compares, "edged's look at its volumes", told=edge.edgecore.tail)


async def check_files(lab: PodLab) -> None:
    """Check, in the running containers, what a restart of edgecore used to empty."""
    for (app, name), paths in _FILES.items():
        pid = await process_of(lab, FIRST, app, name)
        for path in paths:
            await asyncio.to_thread(lab.edges[FIRST].machine.run, "test", "-e", f"/proc/{pid}/root{path}")
        if name == "handler":  # a folder that is deleted takes no files
            await asyncio.to_thread(lab.edges[FIRST].machine.run, "touch", f"/proc/{pid}/root/tmp/file")
