"""The system of `deploy/compose`, driven by the commands of docs/containers.md."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from deploy.images.catalog import IMAGES
from deploy.images.checkout import read_source
from tests.conftest import ROOT

NAME = "gleaner"
"""Name of the Compose project, which is the file's own."""
_SHELL_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
_COMMAND_S = 600.0
# CNI, podman's older network, knows no names of services: netavark does, with aardvark-dns. The limits are
# lower than podman's own, which a virtual machine may not grant.
_CONTAINERS_CONF = """\
[network]
network_backend = "netavark"
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
"""
_USED = ("broker", "edge", "litert", "cloud", "console", "device")


def missing() -> str:
    """Return in a sentence why the containers cannot be started here, or an empty text."""
    if os.geteuid() != 0:
        return "containers are started as root"
    if not _docker() and not shutil.which("podman"):
        return "needs Docker, or: apt-get install podman netavark aardvark-dns"
    if not _docker() and not _is_recent():
        return "needs podman-compose 1.1 or later: run `make test-compose`, which installs it"
    engine, version = "docker" if _docker() else "podman", read_source().version
    tags = [image.tag(version, "amd64") for image in IMAGES if image.side in _USED]
    for tag in tags:
        if not _succeeds(engine, "image", "inspect", tag):
            return f"{tag} is not built: run `make images IMAGES='{' '.join(_USED)}'`"
    if _succeeds(engine, "volume", "inspect", f"{NAME}_cloud-store"):
        return f"there is a Compose project {NAME} on this machine already"
    return ""


def blocks() -> list[str]:
    """Return the shell blocks of the section about Compose."""
    text = (ROOT / "docs/containers.md").read_text(encoding="utf-8")
    section = text.partition("\n## Compose\n")[2].partition("\n## ")[0]
    return _SHELL_BLOCK.findall(section)


class Project:
    """A copy of `deploy/compose` in which the documented commands run.

    Args:
        folder: For the copy, and for programs that stand in for those of the documents.
    """

    def __init__(self, folder: Path) -> None:
        self.root = folder / "checkout"
        self.folder = self.root / "deploy" / NAME  # podman-compose names a project after its folder
        self._environment = self._prepare(folder / "bin") | {
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "GLEANER_PORT": "127.0.0.1:8883",
        }
        (folder / "containers.conf").write_text(_CONTAINERS_CONF)
        self.folder.mkdir(parents=True)
        shutil.copy(ROOT / "deploy/compose/compose.yaml", self.folder)

    def sh(self, script: str, *, typed: str = "") -> str:
        """Run a block of shell commands; return what they wrote, errors too.

        Args:
            script: The commands, each of which must succeed.
            typed: What a person would type.

        Raises:
            AssertionError: A command failed.
        """
        done = subprocess.run(
            ["bash", "-e", "-c", script.replace("cd deploy/compose\n", "")],
            cwd=self.folder, env=os.environ | self._environment, input=typed, text=True, errors="replace",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=_COMMAND_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{script}\n{done.stdout[-4000:]}"
        return done.stdout

    def engine(self, *words: str) -> str:
        """Run the engine that Compose uses, and return what it wrote."""
        return self.sh(f"docker {' '.join(words)}")

    def container(self, service: str) -> str:
        """Return the id of a service's container."""
        label = f"label=com.docker.compose.service={service}"
        (found,) = self.engine("ps", "--quiet", "--no-trunc", "--filter", label).split()
        return found

    def volume(self, name: str) -> Path:
        """Return the folder of a volume."""
        (found,) = json.loads(self.engine("volume", "inspect", f"{NAME}_{name}"))
        return Path(found["Mountpoint"])

    def healthy(self, service: str) -> bool:
        """Return whether a service's own health check succeeds."""
        if _docker():
            return (
                "healthy"
                in self.engine(
                    "inspect", "--format={{.State.Health.Status}}", self.container(service)
                ).split()
            )
        return self._succeeds("podman", "healthcheck", "run", self.container(service))

    def _succeeds(self, *words: str) -> bool:
        return (
            subprocess.run(
                words, env=os.environ | self._environment, capture_output=True, check=False
            ).returncode
            == 0
        )

    def _prepare(self, programs: Path) -> dict[str, str]:
        """Write the programs that the documents call and that may not be here; return the PATH."""
        programs.mkdir()
        scripts = {
            "gleaner": f'PYTHONPATH={ROOT} exec {sys.executable} -P -m cli.main "$@"',
            "sudo": 'exec "$@"',
        }
        if not _docker():
            scripts["docker"] = (
                'if [ "$1" = compose ]; then shift; exec podman-compose "$@"; else exec podman "$@"; fi'
            )
        for name, line in scripts.items():
            (programs / name).write_text(f"#!/bin/sh\n{line}\n")
            (programs / name).chmod(0o755)
        return {"PATH": f"{programs}:{os.environ['PATH']}"}


def traces() -> dict[str, set[str]]:
    """Return containers, volumes, networks, their mounts and this machine's links, by kind."""
    engine = "docker" if _docker() else "podman"
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    links = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout
    return {
        **{
            kind: set(_output(engine, kind, "ls", "--quiet").split())
            for kind in ("container", "volume", "network")
        },
        "mounts": {path for path in mounts if "/overlay-containers/" in path},
        "links": {line.split()[0] for line in links.splitlines()},
    }


def _docker() -> bool:
    return (
        shutil.which("docker") is not None
        and _succeeds("docker", "compose", "version")
        and _succeeds("docker", "info")
    )


def _is_recent() -> bool:
    """Return whether podman-compose runs the health checks of images without a shell: 1.0 does not."""
    if not shutil.which("podman-compose"):
        return False
    found = re.search(r"podman-compose\S* version:? (\d+)\.(\d+)", _output("podman-compose", "--version"))
    return found is not None and (int(found[1]), int(found[2])) >= (1, 1)


def _succeeds(*words: str) -> bool:
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def _output(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout
