"""containerd on a machine: start it, and give it images."""

import json
from pathlib import Path

from tests.pods import settings
from tests.pods.kubectl import until
from tests.pods.machine import Machine, MachineError
from tests.pods.service import Service

SOCKET = "/run/gleaner-pods/containerd.sock"
KEPT = "/var/lib/containerd"
"""The one folder of a machine that outlives the laboratory: its images."""


def configure(machine: Machine, number: int, folder: Path) -> None:
    """Write containerd's and the pod network's configuration; the machine is on."""
    (folder / "containerd.toml").write_text(settings.CONTAINERD, encoding="utf-8")
    network = machine.root("/etc/cni/net.d")
    network.mkdir(parents=True, exist_ok=True)
    (network / "gleaner.conflist").write_text(json.dumps(settings.cni(number)), encoding="utf-8")


async def start(
    machine: Machine, number: int, containerd: Service, folder: Path, *, keep: bool = False
) -> None:
    """Start containerd and wait until it answers.

    Args:
        machine: Where it runs.
        number: Number of the machine.
        containerd: Its process.
        folder: For its configuration.
        keep: Whether the containers that it knows stay; else those of an earlier laboratory are removed.
    """
    configure(machine, number, folder)
    containerd.start()

    async def answers() -> bool:
        return bool(ctr(machine, "version"))

    await until(answers, f"containerd of {machine.name}", told=containerd.tail)
    for container in [] if keep else ctr(machine, "containers", "list", "-q").split():
        ctr(machine, "containers", "delete", container)


def ctr(machine: Machine, *words: str) -> str:
    """Run containerd's own command, in the namespace of Kubernetes.

    Raises:
        MachineError: It failed.
    """
    return machine.run("ctr", "--address", SOCKET, "--namespace", "k8s.io", *words)


def images(machine: Machine) -> set[str]:
    """Return the names of the images that a machine has."""
    return set(ctr(machine, "images", "list", "-q").split())


def tag(machine: Machine, image: str, other: str) -> None:
    """Give an image another name."""
    ctr(machine, "images", "tag", "--force", image, other)


def container_process(machine: Machine, pod: str, name: str) -> int:
    """Return the process id, on the machine, of a pod's running container.

    Raises:
        MachineError: It does not run.
    """
    for line in ctr(machine, "tasks", "list").splitlines()[1:]:
        container, pid, state = line.split()
        labels = json.loads(ctr(machine, "containers", "info", container)).get("Labels") or {}
        named = (labels.get("io.kubernetes.pod.name"), labels.get("io.kubernetes.container.name"))
        if state == "RUNNING" and named == (pod, name):
            return int(pid)
    raise MachineError(f"{machine.name}: container {name} of pod {pod} does not run")
