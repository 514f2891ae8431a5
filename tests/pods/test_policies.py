"""The NetworkPolicies of the overlay, enforced on the cloud node by kube-router."""

import asyncio
import json
from collections.abc import Mapping

import pytest

from tests.pods import images
from tests.pods.conftest import Note
from tests.pods.kubectl import Thing, until
from tests.pods.lab import PodLab

pytestmark = [pytest.mark.pods, pytest.mark.slow, pytest.mark.timeout(1800)]

_PROBE = """\
import json, os, socket, time
ports = json.loads(os.environ["PORTS"])
while True:
    open_ports = []
    for name, (host, port) in ports.items():
        try:
            socket.create_connection((host, port), timeout=1).close()
            open_ports.append(name)
        except OSError:
            pass
    print(json.dumps(open_ports), flush=True)
    time.sleep(1)
"""
"""Prints, once a second, the ports that accept a connection."""
_FOR_ALL = {"broker mqtts", "models http"}
"""Ports that any pod may reach."""
_FOR_THE_BUS = _FOR_ALL | {"broker mqtts-cloud"}
"""Ports that a pod with the label `gleaner/on-the-bus` may reach."""
_BUS = {"gleaner/on-the-bus": "yes"}


async def test_only_the_named_pods_reach_a_port(lab: PodLab, note: Note) -> None:
    """What no NetworkPolicy admits is refused; without the one that refuses all, the same pod is admitted."""
    await lab.in_cloud_ready()
    ports = await listening(lab)
    assert {"gateway http", "collector probes"} < set(ports)
    stranger = await probe(lab, "stranger", "gleaner", {}, ports)
    neighbour = await probe(lab, "neighbour", "default", _BUS, ports)
    colleague = await probe(lab, "colleague", "gleaner", _BUS, ports)
    try:
        await reaches(lab, colleague, _FOR_THE_BUS)
        await reaches(lab, stranger, _FOR_ALL)
        await reaches(lab, neighbour, _FOR_ALL)
        note("NetworkPolicies: a pod of the bus reaches", f"{len(_FOR_THE_BUS)} of {len(ports)} ports")
        note("NetworkPolicies: any other pod reaches", f"{len(_FOR_ALL)} of {len(ports)} ports")
        await lab.kubectl.run("delete", "networkpolicies", "--all")
        await reaches(lab, stranger, set(ports))
    finally:
        await lab.deploy()
        for name, space in (stranger, neighbour, colleague):
            await lab.kubectl.run("delete", "pod", name, "-n", space, "--now")


async def listening(lab: PodLab) -> dict[str, tuple[str, int]]:
    """Return the address of each named port of Gleaner's pods on the cloud node."""
    pods = json.loads(await lab.kubectl.run("get", "pods", "-o", "json"))["items"]
    return {
        f"{pod['metadata']['labels']['app.kubernetes.io/name']} {port['name']}": (
            pod["status"]["podIP"],
            port["containerPort"],
        )
        for pod in pods
        if pod["spec"]["nodeName"] == "cloud"
        for container in pod["spec"]["containers"]
        for port in container.get("ports", ())
    }


async def probe(
    lab: PodLab, name: str, space: str, labels: Mapping[str, str], ports: Mapping[str, tuple[str, int]]
) -> tuple[str, str]:
    """Start a pod on the cloud node that prints which ports it reaches; return its name and namespace."""
    container: Thing = {
        "name": "probe",
        "image": images.image_name("gleaner-cloud"),
        "command": ["python3", "-c", _PROBE],
        "env": [{"name": "PORTS", "value": json.dumps(ports)}],
    }
    pod: Thing = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": space, "labels": dict(labels)},
        "spec": {"nodeName": "cloud", "containers": [container], "terminationGracePeriodSeconds": 0},
    }
    await asyncio.to_thread(lab.kubectl.apply, pod)
    return name, space


async def reaches(lab: PodLab, pod: tuple[str, str], expected: set[str]) -> None:
    """Wait until a pod reaches these ports and no other."""
    last: list[set[str]] = []

    async def holds() -> bool:
        name, space = pod
        line = await lab.kubectl.run("logs", name, "-n", space, "--tail=1")
        if not line.strip():
            return False
        last[:] = [set(json.loads(line))]
        return last[0] == expected

    await until(holds, f"{pod[0]} reaches {sorted(expected)}", within_s=120.0, told=lambda: str(last))
