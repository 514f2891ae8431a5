"""Policies and releases, published in the cloud with the key that may."""

import asyncio
import shutil
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

from tests.faults import configs
from tests.nodes import toml
from tests.pods import addresses as at
from tests.pods import storage
from tests.pods.lab import PodLab
from tests.pods.machine import MachineError
from tests.pods.models import bundle

_GLEANER = Path(sys.executable).with_name("gleaner")
_SERVED_S = 240.0
PORT = 30880
"""NodePort at which nodes fetch bundles."""


async def harvest_all(lab: PodLab, nodes: Sequence[str]) -> None:
    """Publish a policy by which the nodes harvest every photo."""
    rules = toml(configs.RULES, lab.folder / "lab/rules.toml")
    await run(lab, "rollout", "policy", "--any-node", "--nodes", ",".join(nodes), "--set", str(rules))


async def release(lab: PodLab, version: int, nodes: Sequence[str], *, wait_s: float = _SERVED_S) -> str:
    """Release a version and wait until the nodes serve it; return the command's output."""
    publish_bundle(lab, version)
    return await release_bundle(lab, bundle(version), nodes, wait_s=wait_s)


async def release_bundle(lab: PodLab, path: Path, nodes: Sequence[str], *, wait_s: float = _SERVED_S) -> str:
    """Release a bundle that the file server has, see `release`."""
    words = ["--force", "--any-node", "--nodes", ",".join(nodes), "--wait", str(wait_s)]
    words += ["--url", f"http://{at.CLOUD}:{PORT}/{{version}}.tar"]
    words += ["--signing-key", str(lab.site / "authority/signing.key")]
    return await run(lab, "rollout", "release", str(path), *words)


async def admit(lab: PodLab, node: str) -> None:
    """Let a node join that gets its policy and a model too."""
    await lab.join(node)
    await harvest_all(lab, (node,))
    await release(lab, 1, (node,))


def publish_bundle(lab: PodLab, version: int) -> None:
    """Put a version into the registry, where the file server of the cloud serves its bundle."""
    models = storage.store(lab.cloud.machine) / "models"
    models.mkdir(exist_ok=True)
    shutil.copy(bundle(version), models / f"{version}.tar")
    with tarfile.open(bundle(version)) as archive:
        archive.extractall(models / str(version), filter="data")
    lab.cloud.machine.run("chown", "-R", "10001:10001", f"{storage.STORE}/models")


async def run(lab: PodLab, identity: str, *words: str, check: bool = True) -> str:
    """Run a step of `gleaner cloud` on the cloud machine, with the certificate of an identity.

    Args:
        lab: The laboratory.
        identity: `rollout`, or `operator`.
        words: The step and its options.
        check: Whether it must succeed.

    Returns:
        What it wrote.

    Raises:
        MachineError: It failed.
    """
    folder = lab.site / ("operator" if identity == "operator" else "cloud")
    key = (
        "--ca",
        folder / "ca.pem",
        "--cert",
        folder / f"{identity}.pem",
        "--key",
        folder / f"{identity}.key",
    )
    command = lab.cloud.machine.command(_GLEANER, "cloud", *words, "--broker", "broker:8884", *key)
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    if check and process.returncode:
        raise MachineError(f"gleaner cloud {words[0]} failed: {output.decode().strip()}")
    return output.decode()
