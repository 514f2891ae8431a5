"""Rights by client certificate: the common name decides what a client may publish and read."""

import contextlib

import pytest

from schemas.topics import PHOTO, RESULT
from tests.broker_contract.conftest import Site

OWN, OTHER = (PHOTO.name(node="edge-1", device=device) for device in ("pi-1", "pi-2"))
OWN_RESULT, OTHER_RESULT = (RESULT.name(node="edge-1", device=device) for device in ("pi-1", "pi-2"))


@pytest.fixture
def clients(site: Site, version, topic):
    """Make a connected client with a certificate of the site, by the name of its folder and file."""
    with contextlib.ExitStack() as opened:

        def client(folder: str, stem: str):
            return opened.enter_context(site.client(folder, stem, f"{stem}-{topic[-16:]}", version))

        yield client


def test_a_client_without_a_certificate_is_refused(site, version, topic):
    """Before it can send anything."""
    with pytest.raises((OSError, AssertionError)), site.client(None, "nobody", f"nobody-{topic}", version):
        pass


def test_a_device_publishes_on_its_own_topics_only(clients):
    """What it sends as another device reaches nobody, and its connection survives or is closed."""
    edge, device = clients("edges/edge-1", "edge"), clients("devices/edge-1.pi-1", "device")
    edge.subscribe(PHOTO.select(node="edge-1"))
    device.attempt(OTHER, b"forged")
    clients("devices/edge-1.pi-2", "device").publish(OTHER, b"true")
    assert edge.take(1) == [b"true"]


def test_a_device_reads_its_own_results_only(clients):
    """Whether the broker refuses the wider subscription or only delivers nothing."""
    edge, device = clients("edges/edge-1", "edge"), clients("devices/edge-1.pi-1", "device")
    with contextlib.suppress(AssertionError):
        device.subscribe("gleaner/v1/#")
    device.reconnect_if_closed()
    device.subscribe(OWN_RESULT)
    edge.publish(OTHER_RESULT, b"of pi-2")
    edge.publish(OWN_RESULT, b"of pi-1")
    assert device.take(1) == [b"of pi-1"]
