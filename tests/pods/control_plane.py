"""A Kubernetes control plane without any node: etcd, API server and two controllers, on loopback."""

import json
import secrets
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.kubeedge import settings
from tests.kubeedge.service import Service, write_private
from tests.kubeedge.settings import Ports
from tests.pods.kubectl import Kubectl, until
from tests.pods.programs import PodPrograms

SYNC_S = 1
"""How often the autoscaler looks, in seconds; 15 by default."""


class ControlPlane:
    """StatefulSets get their pods, and autoscalers act; pods stay where the API server has them.

    Args:
        folder: For its files; empty.
        programs: The built programs.
    """

    def __init__(self, folder: Path, programs: PodPrograms) -> None:
        self._folder = folder
        self._ports = Ports.free()
        self.kubectl = Kubectl(folder / "kubeconfig")
        etcd = [str(programs.core.etcd), *settings.etcd_options(self._ports, folder)]
        apiserver = [str(programs.core.apiserver), *settings.apiserver_options(self._ports, folder)]
        controllers = [
            str(programs.controller_manager),
            f"--kubeconfig={folder / 'kubeconfig'}",
            "--controllers=statefulset-controller,horizontal-pod-autoscaler-controller",
            f"--horizontal-pod-autoscaler-sync-period={SYNC_S}s",
            "--leader-elect=false",
            "--secure-port=0",
        ]
        self._services = [
            Service("etcd", folder, etcd),
            Service("kube-apiserver", folder, apiserver),
            Service("kube-controller-manager", folder, controllers),
        ]

    async def __aenter__(self) -> Self:
        """Start; entered when the API server is ready."""
        self._lay_out()
        etcd, apiserver, controllers = self._services
        try:
            etcd.start()
            apiserver.start()  # it waits for etcd
            await until(self._ready, "the API server", told=apiserver.tail)
            controllers.start()
        except BaseException:
            self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self._stop()

    def told(self) -> str:
        """Return the last lines of the controllers' log."""
        return self._services[-1].tail()

    def _stop(self) -> None:
        for service in reversed(self._services):
            service.stop()

    async def _ready(self) -> bool:
        return await self.kubectl.run("get", "--raw", "/readyz") == "ok"

    def _lay_out(self) -> None:
        subprocess.run(  # openssl with fixed arguments
            ["openssl", "genpkey", "-algorithm", "RSA", "-out", self._folder / "service-account.key"],
            check=True,
            capture_output=True,
        )
        token = secrets.token_urlsafe(32)
        write_private(self._folder / "tokens.csv", f"{token},lab,lab,system:masters\n")
        authority = self._folder / "apiserver/apiserver.crt"
        tree = settings.kubeconfig(self._ports, authority, token)
        write_private(self._folder / "kubeconfig", json.dumps(tree))
