"""An edge node: a machine with containerd and edgecore, whose pods are deployed from the cloud."""

import json
import secrets
from pathlib import Path

from tests.kubeedge.service import write_private
from tests.pods import runtime
from tests.pods.edge_settings import EdgeLink, edgecore
from tests.pods.machine import Machine
from tests.pods.programs import PodPrograms
from tests.pods.service import Service


class Edge:
    """The programs of an edge machine.

    Args:
        machine: Where they run.
        number: Number of the machine.
        folder: For their files.
        programs: The built programs.
    """

    def __init__(self, machine: Machine, number: int, folder: Path, programs: PodPrograms) -> None:
        self.machine = machine
        self.name = machine.name
        self.link = EdgeLink()
        self.password = secrets.token_hex(16)
        self._number = number
        self._folder = folder
        self.containerd = Service(
            f"{self.name}-containerd", machine, folder,
            ["/usr/bin/containerd", "--config", str(folder / "containerd.toml")],
        )  # fmt: skip
        self.edgecore = Service(
            f"{self.name}-edgecore", machine, folder,
            [str(programs.core.edgecore), f"--config={folder / 'edgecore.yaml'}"],
        )  # fmt: skip

    async def start_runtime(self, *, booted: bool = False) -> None:
        """Start containerd.

        Args:
            booted: Whether the machine's containers are those from before a power cut, which edged replaces.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        await runtime.start(self.machine, self._number, self.containerd, self._folder, keep=booted)

    def configure(self, token: str, link: EdgeLink | None = None) -> None:
        """Write edgecore's configuration for its next start.

        Args:
            token: Token for joining the first time.
            link: How it connects from now on.
        """
        self.link = link or self.link
        tree = edgecore(
            name=self.name, address=self.machine.address, cgroup=self.machine.cgroup, token=token,
            password=self.password, link=self.link,
        )  # fmt: skip
        write_private(self._folder / "edgecore.yaml", json.dumps(tree))

    def volume_starts(self) -> int:
        """Return how often edged has begun to compare its volumes with its pods."""
        return self.edgecore.log.read_text(errors="replace").count("Reconciler: start to sync state")
