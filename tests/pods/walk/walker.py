"""Run the README's commands where a person would: on this machine, which reaches cluster and nodes."""

import asyncio
import contextlib
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import yaml

from bus.broker.locate import find_mosquitto
from schemas.errors import TransientError
from tests.conftest import ROOT
from tests.pods import addresses as at
from tests.pods import overlay
from tests.pods.lab import PodLab
from tests.pods.machine import MachineError

_STEP_S = 900.0
_LOOK_S = 1.0


class Walker:
    """A shell that keeps its variables and its folder from one step to the next.

    Args:
        lab: The laboratory, started bare.
        folder: For a copy of the manifests, and for what the commands write.
    """

    def __init__(self, lab: PodLab, folder: Path) -> None:
        self._lab = lab
        self.folder = folder
        self._programs = folder / "bin"
        self._state = folder / "state.sh"

    def prepare(self) -> None:
        """Write what a person has: ssh to the nodes, and the manifests with the names of the own images."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._programs.mkdir(parents=True)
        shutil.copytree(ROOT / "deploy/kubeedge", self.folder / "deploy/kubeedge")
        kubeconfig = self.folder / "kubeconfig"
        shutil.copy(self._lab.cloud.folder / "host.kubeconfig", kubeconfig)
        names = [f"{edge.machine.lan} {name}" for name, edge in self._lab.edges.items()]
        (self.folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *names, ""]))
        passwd = find_mosquitto().binary.parent.parent / "bin/mosquitto_passwd"
        scripts = {
            "gleaner": f'PYTHONPATH={ROOT} exec {sys.executable} -P -m cli.main "$@"',
            "mosquitto_passwd": f'exec {passwd} "$@"',
            "ssh": self._at_node('exec $enter bash -ec "$2"', "$1"),
            # Onto a real node scp makes the folder; here it is there, and empty.
            "scp": self._at_node('exec $enter cp -rT "$(realpath "$2")" "${3#*:}"', "${3%%:*}"),
        }
        for name, script in scripts.items():
            (self._programs / name).write_text(f"#!/bin/bash\n{script}\n")
            (self._programs / name).chmod(0o755)
        self._state.write_text(f"cd {self.folder}\n")
        self._name_images()

    async def run(self, script: str, *, typed: str = "") -> str:
        """Run commands and return what they wrote, errors too.

        Raises:
            MachineError: One of them failed.
        """
        mounted = f"mount --bind {self.folder / 'hosts'} /etc/hosts"
        keep = f'declare -px >{self._state}; printf "cd %q\\n" "$PWD" >>{self._state}'
        # What a failed command leaves in the background would keep the output open.
        end = 'trap "kill \\$(jobs -p) 2>/dev/null || true" EXIT'
        command = f"{mounted}\n{end}\nsource {self._state}\n{script}\n{keep}"
        words = ["unshare", "--mount", "bash", "-ec", command]
        process = await asyncio.create_subprocess_exec(
            *words, env=self._environment(), stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(_STEP_S), self._controllers():
            output, _ = await process.communicate(typed.encode())
        if process.returncode:
            raise MachineError(f"{script}\n{output.decode()[-3000:]}")
        return output.decode()

    @asynccontextmanager
    async def following(self, script: str) -> AsyncIterator[None]:
        """Run a command for the duration of a block, then stop it."""
        words = ["bash", "-ec", f"source {self._state}\nexec {script.strip()}"]
        process = await asyncio.create_subprocess_exec(*words, env=self._environment())
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()

    def _environment(self) -> dict[str, str]:
        path = f"{self._programs}:{os.environ['PATH']}"
        return os.environ | {"PATH": path, "KUBECONFIG": str(self.folder / "kubeconfig")}

    def _at_node(self, command: str, name: str) -> str:
        """Return a script that runs a command on the machine with a name."""
        cases = "\n".join(
            f'  {node}) enter="{" ".join(edge.machine.command())}" ;;'
            for node, edge in self._lab.edges.items()
        )
        return f'case "{name}" in\n{cases}\nesac\n{command}'

    def _name_images(self) -> None:
        """Name the laboratory's images in the overlay, as a person names those of the own registry."""
        path = self.folder / "deploy/kubeedge/overlays/fleet/kustomization.yaml"
        tree = yaml.safe_load(path.read_text())
        tree["images"] = [
            {"name": name, "newName": f"{overlay.REGISTRY}/{own}", "newTag": overlay.TAG}
            for name, own in overlay.IMAGES.items()
        ]
        path.write_text(yaml.safe_dump(tree))

    @asynccontextmanager
    async def _controllers(self) -> AsyncIterator[None]:
        """Do during a block what a cluster's name server and load balancer would do."""

        async def attend() -> None:
            while True:
                with contextlib.suppress(TransientError):
                    await self._lab.cloud.publish_names()
                    await self._balance()
                await asyncio.sleep(_LOOK_S)

        attending = asyncio.create_task(attend(), name="walk.controllers")
        try:
            yield
        finally:
            attending.cancel()
            await asyncio.gather(attending, return_exceptions=True)

    async def _balance(self) -> None:
        """Give the Service `models` the cloud machine's address."""
        kubectl = self._lab.kubectl
        status = {"status": {"loadBalancer": {"ingress": [{"ip": at.CLOUD}]}}}
        words = ("-n", "gleaner", "service", "models", "--subresource=status", "--type=merge")
        await kubectl.run("patch", *words, "-p", json.dumps(status))
