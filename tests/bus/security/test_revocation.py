"""Keys end: removed, replaced and rotated keys on a real mosquitto that `gleaner broker` runs."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bus.config import Tls
from tests.conftest import ROOT
from tests.sites import Client, broker_of, files, free_ports, provision, wait_until

PI_1, PI_2 = "edge-1.pi-1", "edge-1.pi-2"
_OFTEN = """
import sys, threading, pathlib, signal
from bus import log
from bus.broker.locate import find_mosquitto
from bus.broker.watched import run_watched
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
log.configure()
run_watched(pathlib.Path(sys.argv[1]), find_mosquitto(), stop, poll_s=0.2)
"""
RESULT = "gleaner/v1/result/edge-1/pi-1"


class Node:
    """A provisioned node, and `gleaner broker --config` for it."""

    def __init__(self, folder: Path) -> None:
        self.site, self.port = folder / "site", free_ports()
        node = ("--edge", "edge-1", "--edge-host", f"127.0.0.1:{self.port}", "--devices", "pi-1,pi-2")
        provision(self.site, "--cloud", f"127.0.0.1:{free_ports()}", *node)
        self.broker, self.log = self.site / "edges/edge-1", folder / "log"
        self._stolen = folder / "stolen"

    @property
    def operator(self) -> Tls:
        return files(self.site / "operator", "operator")

    def device(self, name: str) -> Tls:
        return files(self.site / "devices" / name, "device")

    def stolen(self, folder: str, stem: str) -> Tls:
        """Copy an identity's files, as a thief would."""
        copy = self._stolen / f"{folder}-{len(list(self._stolen.rglob('ca.pem')))}"
        shutil.copytree(self.site / folder, copy)
        return files(copy, stem)

    def accepts(self, tls: Tls, port: int | None = None) -> bool:
        """Return whether the broker accepts a client."""
        client = Client(port or self.port, tls)
        if accepted := client.connect():
            client.__exit__()
        return accepted

    def starts(self) -> int:
        """Return how often the broker was started."""
        return self.log.read_text().count("broker.started")

    def provision(self, *words: str) -> None:
        """Provision, and wait until the broker has read the changed files."""
        before = self.starts()
        provision(self.site, *words)
        wait_until(lambda: self.starts() > before and self.accepts(files(self.broker, "edge")))

    @contextmanager
    def running(self, *command: str) -> Iterator[None]:
        """Run a Python command that runs the broker."""
        with self.log.open("wb") as log:
            process = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=log, stderr=log)
        try:
            wait_until(lambda: self.accepts(files(self.broker, "edge")))
            yield
            assert process.poll() is None, self.log.read_text()
        finally:
            process.terminate()
            process.wait()


@pytest.fixture
def node(tmp_path) -> Iterator[Node]:
    """A node with its broker, whose files are looked at often."""
    node = Node(tmp_path)
    with node.running("-c", _OFTEN, str(node.broker / "mosquitto.conf")):
        yield node


def test_g5_a_removed_device_is_refused_within_a_minute(tmp_path):
    """G5: `gleaner broker` ends its connection and accepts no other, even when a new device has its name.

    The other devices' sessions and queued messages survive the restart of the broker.
    """
    node = Node(tmp_path)
    with node.running("-m", "cli.main", "broker", "--config", str(node.broker / "mosquitto.conf")):
        remove_and_add_again(node)


def remove_and_add_again(node: Node) -> None:
    stolen = node.stolen(f"devices/{PI_2}", "device")
    with Client(node.port, node.device(PI_1), client_id=PI_1, durable=True) as other:
        other.subscribe(RESULT)
    with Client(node.port, files(node.broker, "edge"), client_id="edge-1.edge") as handler:
        handler.publish(RESULT, payload="kept")
    with Client(node.port, stolen) as thief:
        node.provision("--remove", PI_2)
        assert thief.disconnected.is_set()
    assert not node.accepts(stolen)
    with Client(node.port, node.device(PI_1), client_id=PI_1, durable=True) as other:
        wait_until(lambda: other.got("kept") == {RESULT})
    node.provision("--edge", "edge-1", "--devices", "pi-2")
    assert node.accepts(node.device(PI_2))
    assert not node.accepts(stolen)


@pytest.mark.parametrize("way", ["--replace", "delete the key"])
def test_g5_a_replaced_key_is_refused_within_a_minute(node, way):
    """G5: the old key and certificate of the same name end, by the option and by deleting the key."""
    stolen = node.stolen(f"devices/{PI_2}", "device")
    if way == "--replace":
        node.provision("--replace", PI_2)
    else:
        (node.site / f"devices/{PI_2}/device.key").unlink()
        node.provision()
    assert not node.accepts(stolen)
    assert node.accepts(node.device(PI_2))


def test_g5_every_certificate_of_a_replaced_key_ends(node):
    """G5: also those from before a renewal, and of the operator at the other port."""
    first = node.stolen("operator", "operator")
    node.provision("--renew")
    second = node.stolen("operator", "operator")
    assert node.accepts(first, node.port + 1)
    node.provision("--replace", "cloud.operator")
    assert [node.accepts(tls, node.port + 1) for tls in (first, second, node.operator)] == [
        False,
        False,
        True,
    ]


def test_g5_a_rotated_authority_is_trusted_during_the_overlap(node):
    """G5: then certificates of both CAs are accepted, and after it those of the new CA alone."""
    old = node.device(PI_2)
    stolen = node.stolen(f"devices/{PI_2}", "device")
    node.provision("--rotate", "authority", "--overlap", "1")
    assert node.accepts(node.device(PI_2))
    node.provision("--renew")  # everything is issued by the new CA from here
    during = node.stolen(f"devices/{PI_2}", "device")
    with_new_ca = Tls(ca=old.ca, certificate=stolen.certificate, key=stolen.key)
    assert (node.accepts(during), node.accepts(with_new_ca)) == (True, True)
    node.provision("--rotate", "authority", "--overlap", "0")
    ca = old.ca
    for tls in (stolen, during):
        assert not node.accepts(Tls(ca=ca, certificate=tls.certificate, key=tls.key))
    assert node.accepts(node.device(PI_2))


def test_g5_the_overlap_ends_by_itself(tmp_path, mosquitto):
    """G5: the old CA ends at the stated time although nobody copies anything or restarts the broker."""
    node = Node(tmp_path)
    old = node.stolen(f"devices/{PI_2}", "device")
    seconds = 3
    provision(node.site, "--rotate", "authority", "--overlap", str(seconds / 86400))
    provision(node.site, "--renew")
    both = Tls(ca=str(node.broker / "ca.pem"), certificate=old.certificate, key=old.key)
    with broker_of(node.broker, node.port, mosquitto):
        wait_until(lambda: not node.accepts(both))
        assert node.accepts(node.device(PI_2))
