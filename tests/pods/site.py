"""The identities of the site: `gleaner provision`, the folders of the nodes, and the Secrets of the cloud."""

import subprocess
import sys
from pathlib import Path

from bus.broker.locate import find_mosquitto
from tests.conftest import ROOT
from tests.pods.edge import Edge
from tests.pods.kubectl import Kubectl
from tests.pods.machine import MachineError

USER = 10001
"""User and group of every container."""
_FOLDERS = ("broker", "edge", "models", "serving")
_SECRETS = {
    "broker": ["ca.pem", "operations.pem", "broker.pem", "broker.key", "rights", "revoked.crl"],
    "gateway": ["ca.pem", "gateway.pem", "gateway.key"],
    "collector": [
        "ca.pem", *(f"collector-{number}.{end}" for number in (2, 3, 4) for end in ("pem", "key")),
    ],
}  # fmt: skip


def provision(folder: Path, edges: list[Edge]) -> None:
    """Run `gleaner provision` for nodes with two cameras each, which reach their brokers at `lan0`."""
    words = ["--home", "/etc/gleaner", "--cloud", "broker", "--collectors", "4"]
    for edge in edges:
        words += ["--edge", edge.name, "--edge-host", edge.machine.lan, "--devices", "pi-1,pi-2"]
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "provision", str(folder), *words],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise MachineError(f"gleaner provision failed: {done.stderr}")


def furnish(site: Path, edge: Edge) -> None:
    """Put a node's folder on it, with the password of its EventBus, and make the folders of its pods."""
    source, home = site / "edges" / edge.name, "/etc/gleaner"
    edge.machine.run("cp", "-r", f"{source}/.", home)
    edge.machine.run("install", "-m", "0600", "/dev/null", f"{home}/passwords")
    mosquitto = find_mosquitto()
    program = mosquitto.binary.parent.parent / "bin/mosquitto_passwd"
    edge.machine.run(program, "-b", f"{home}/passwords", f"{edge.name}.eventbus", edge.password)
    owner = ["-o", str(USER), "-g", str(USER), "-m", "0700"]
    edge.machine.run("install", "-d", *owner, *(f"/var/lib/gleaner/{name}" for name in _FOLDERS))
    edge.machine.run("chown", "-R", f"{USER}:{USER}", home)


def store_secrets(site: Path, kubectl: Kubectl) -> None:
    """Create the cloud's Secrets from the provisioned files."""
    for secret in _SECRETS:
        store_secret(site, kubectl, secret)


def store_secret(site: Path, kubectl: Kubectl, secret: str) -> None:
    """Create or replace one of the cloud's Secrets."""
    files = [f"--from-file={site / 'cloud' / name}" for name in _SECRETS[secret]]
    kubectl("delete", "secret", secret, "--ignore-not-found")
    kubectl("create", "secret", "generic", secret, *files)
