"""The laboratory: a cloud machine and edge machines, and the pods that the cloud deploys to them."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

from bus.files.cache_folder import default_cache
from tests.pods import images, overlay, site, storage
from tests.pods.cloud import Cloud, namespace
from tests.pods.edge import Edge
from tests.pods.kubectl import Kubectl, until
from tests.pods.machine import Machine, made_in, remove_mount_points, remove_switch
from tests.pods.pod import Pod, table
from tests.pods.programs import PodPrograms

NODES = ("edge-1", "edge-2")
_CLOUD = "cloud"
_FIRST_NUMBER = 11
_PODS_AT_EDGE = ("edge", "edge-broker")
_PODS_IN_CLOUD = ("broker", "collector", "gateway", "models")
_MACHINE_FOLDERS = (
    "/var/lib/kubelet", "/var/lib/kubeedge", "/etc/kubeedge", "/var/lib/gleaner", "/etc/gleaner",
    "/var/log/pods", "/var/log/containers", "/run/containerd", "/etc/cni", "/run/netns", "/run/gleaner-pods",
)  # fmt: skip


def default_folder() -> Path:
    """Return the folder of all files of the laboratory."""
    return default_cache() / "pods"


class PodLab:
    """A cloud machine and edge machines.

    Args:
        programs: The built programs.
        folder: For all files; only the images of the machines outlive the laboratory.
        nodes: Names of the edge nodes.
        told: Called with each step.
    """

    def __init__(
        self,
        programs: PodPrograms,
        folder: Path | None = None,
        *,
        nodes: tuple[str, ...] = NODES,
        told: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.folder = (folder or default_folder()).resolve()
        self.programs = programs
        self.site = self.folder / "lab/site"
        self.told = told
        self._machines_folder = self.folder / "machines"
        self.cloud = Cloud(Machine(_CLOUD, 1, self._machines_folder), self.folder / "lab/cloud", programs)
        self.edges = {
            name: Edge(
                Machine(name, number, self._machines_folder), number, self.folder / "lab" / name, programs
            )
            for number, name in enumerate(nodes, _FIRST_NUMBER)
        }
        self.joined: list[str] = []
        """Names of the edge nodes that have joined."""

    @property
    def kubectl(self) -> Kubectl:
        """Kubectl with all rights."""
        return self.cloud.kubectl

    @property
    def machines(self) -> list[Machine]:
        """All machines."""
        return [self.cloud.machine, *(edge.machine for edge in self.edges.values())]

    async def start(self, *, bare: bool = False) -> None:
        """Start machines, control plane and cloud node; no edge node joins and nothing is deployed yet.

        Args:
            bare: Make no identities, namespace and Secrets: the caller makes them.

        Raises:
            MachineError: A machine or program did not start.
            KubectlError: Something was not ready in time.
        """
        self.stop()
        self._lay_out()
        if not bare:
            site.provision(self.site, list(self.edges.values()))
        for machine in self.machines:
            machine.on()
        self.told("machines on")
        await self.cloud.start_runtime()
        await self.cloud.start_control_plane()
        self.told("control plane up")
        await self._load_images(self.cloud.machine, images.CLOUD)
        if bare:
            await self._load_images(self.cloud.machine, images.FLEET)
        await self.cloud.start_node()
        storage.make_folders(self.cloud.machine)
        self.kubectl.apply(*storage.objects())
        if not bare:
            self.kubectl.apply(namespace("gleaner"))
            site.store_secrets(self.site, self.kubectl)
        await self.cloud.start_cloudcore()
        self.told("cloud node and cloudcore ready")

    async def join(self, name: str) -> None:
        """Let an edge node join: its runtime, its folder, its edgecore."""
        await self.boot(name)
        site.furnish(self.site, self.edges[name])
        await self.register(name)

    async def boot(self, name: str) -> None:
        """Start the container runtime of an edge node, and give it its images."""
        edge = self.edges[name]
        await edge.start_runtime()
        await self._load_images(edge.machine, images.EDGE)

    async def register(self, name: str) -> None:
        """Start edgecore on a node that has its folder, for the first time."""
        edge = self.edges[name]
        edge.configure(self.cloud.join_token)
        edge.edgecore.start()
        await self._until_joined(edge)
        self.joined.append(name)
        self.told(f"{name} has joined")

    async def join_again(self, name: str) -> None:
        """Let a node that was removed from the cluster join as a new one; its pods of before still run."""
        edge = self.edges[name]
        forgotten = ("/var/lib/kubeedge", "/etc/kubeedge", "-mindepth", "1", "-delete")
        await asyncio.to_thread(edge.machine.run, "find", *forgotten)
        edge.configure(self.cloud.join_token)
        edge.edgecore.start()
        await self._until_joined(edge)

    async def _until_joined(self, edge: Edge) -> None:
        """Wait until a node is ready; start its edgecore again if it ends, as its systemd unit would.

        It ends if the cloud has not sent it its own Node within half a minute, as on a busy machine.
        """

        async def ready() -> bool:
            if edge.edgecore.ended():
                edge.edgecore.start()
            return await self.cloud.node_is(edge.name, ready=True)

        await until(ready, f"{edge.name} ready", told=edge.edgecore.tail)

    async def power_cut(self, name: str, *, plugged_in: bool = True) -> None:
        """Cut the power of an edge node and boot it; what was in memory is lost.

        Args:
            name: The node.
            plugged_in: Whether it reaches the cloud after the boot.
        """
        edge = self.edges[name]
        await asyncio.to_thread(edge.machine.off)
        edge.machine.forget("/run/gleaner-pods", "/run/netns", "/run/containerd")
        await asyncio.to_thread(edge.machine.on)
        if not plugged_in:
            edge.machine.unplug()
        await edge.start_runtime(booted=True)
        await asyncio.to_thread(edge.edgecore.start)

    async def deploy(self, tags: dict[str, str] | None = None) -> None:
        """Apply `overlays/single-node`."""
        await overlay.apply(self.kubectl, self.folder / "lab/overlay", "single-node", self.edges, tags)
        await self.cloud.publish_names()
        self.told("overlay single-node applied")

    async def pods(self) -> list[Pod]:
        """Return all pods of Gleaner."""
        things = await asyncio.to_thread(self.kubectl.get, "pods")
        return [Pod.of(thing) for thing in things]

    async def ready(
        self, nodes: tuple[str, ...] | None = None, *, more: tuple[str, ...] = (), within_s: float = 900.0
    ) -> None:
        """Wait until every pod is ready, each workload of the edge on each of the nodes.

        Args:
            nodes: The edge nodes; all of them if absent.
            more: Workloads in the cloud that not every overlay has.
            within_s: How long, in seconds.
        """
        wanted = {(app, node) for app in _PODS_AT_EDGE for node in nodes or tuple(self.edges)}
        await self._until_ready(wanted | {(app, _CLOUD) for app in (*_PODS_IN_CLOUD, *more)}, within_s)

    async def _until_ready(self, wanted: set[tuple[str, str]], within_s: float) -> None:
        last: list[Pod] = []

        async def holds() -> bool:
            last[:] = [pod for pod in await self.pods() if (pod.app, pod.node) in wanted]
            return all(pod.ready and not pod.ending for pod in last) and wanted == {
                (pod.app, pod.node) for pod in last
            }

        await until(holds, "all pods ready", within_s=within_s, told=lambda: f"\n{table(last)}")

    async def in_cloud_ready(self) -> None:
        """Wait until the pods of the cloud are ready."""
        await self._until_ready({(app, _CLOUD) for app in _PODS_IN_CLOUD}, 900.0)

    def stop(self) -> None:
        """Turn all machines off and remove what they left on this one; their images stay.

        Also those of a laboratory with other nodes in the same folder.
        """
        ours = {machine.name for machine in self.machines}
        others = [machine for machine in made_in(self._machines_folder) if machine.name not in ours]
        for machine in [*others, *reversed(self.machines)]:
            machine.off()
        remove_switch()
        remove_mount_points(self._machines_folder)

    async def _load_images(self, machine: Machine, names: tuple[str, ...]) -> None:
        await asyncio.to_thread(images.load, machine, names)

    def _lay_out(self) -> None:
        shutil.rmtree(self.folder / "lab", ignore_errors=True)
        for machine in self.machines:
            machine.forget(*_MACHINE_FOLDERS)
        self.cloud.lay_out()
