"""The manifests against a real API server, which checks more than a schema."""

import asyncio

import pytest

from bus.gateway.rules.rules import NAMESPACE
from tests.deploy.test_manifests import HERE, OVERLAYS
from tests.kubeedge.lab import Lab

pytestmark = [pytest.mark.kubeedge, pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("overlay", OVERLAYS)
async def test_the_api_server_accepts_every_object(lab: Lab, overlay: str) -> None:
    """With KubeEdge's definitions it accepts each overlay in a dry run, without unknown fields."""
    await lab.prepare(NAMESPACE)
    process = await asyncio.create_subprocess_exec(
        "kubectl", "--kubeconfig", lab.folder / "kubeconfig",
        "apply", "--dry-run=server", "--validate=strict", "--kustomize", HERE / "overlays" / overlay,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert out.decode().count("(server dry run)") == len(out.decode().splitlines())
