import asyncio
import urllib.request

import pytest
from cryptography import x509
from prometheus_client.parser import text_string_to_metric_families

from bus.broker.process import free_port
from bus.config import Broker, OutboxLimits, Tls
from bus.health import HealthServer
from bus.metrics import Counters, Durations
from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.presence import Presence
from bus.observability import metric_catalogue as catalogue
from bus.observability.exposition import Exposition, counter_measurements
from bus.observability.measurements import (
    BrokerDrops,
    Measurement,
    certificate_measurements,
    disk_measurements,
    outbox_measurements,
)
from bus.outbox.outbox import Outbox
from bus.outbox.sqlite import Database
from bus.security import certificates
from bus.security.certificates import Authority
from tests.conftest import DEADLINE_S, eventually, running


def series(page: bytes) -> dict[str, float]:
    """Return each series of a page with its value, read by Prometheus' own parser."""
    return {
        ",".join(
            [sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))]
        ): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def bus_to(address: Broker) -> Bus:
    return Bus(address, transient_client_id("measured"), presence=Presence("edge-1", "edge"))


async def test_the_page_has_status_measurements_and_process(address):
    """Counters of the Status, what sources measure, and the memory of the process, in the text format."""
    bus = bus_to(address)
    bus.counters.add("result.ok", 3)
    bus.counters.add("harvest.refused_cap-per-day")
    bus.counters.add("harvest.refused_near-duplicate")
    durations = Durations((0.1, 1.0))
    for duration_s in (0.05, 0.1, 0.5, 7.0):
        durations.observe(duration_s)
    page = Exposition("edge", bus, lambda: [Measurement(catalogue.PROCESS_DURATION, durations)]).page()
    found = series(page)
    assert found["gleaner_results_total,status=ok"] == 3
    assert found["gleaner_harvest_refusals_total"] == 2
    assert found["gleaner_ready"] == 0  # there is no connection
    buckets = [
        found[f"messaging_process_duration_seconds_bucket,le={bound}"] for bound in ("0.1", "1.0", "+Inf")
    ]
    assert buckets == [2, 3, 4]
    assert found["messaging_process_duration_seconds_sum"] == pytest.approx(7.65)
    assert found["process_resident_memory_bytes"] > 1_000_000
    assert any(name.startswith("target_info,service_name=edge,service_namespace=edge-1") for name in found)


async def test_a_request_of_the_metrics_publishes_no_less(address):
    """A change of the Status that is not sent yet is still sent after its counters were read."""
    presence = Presence("edge-1", "edge")
    bus = Bus(address, transient_client_id("measured"), presence=presence)
    bus.report_later(clock_offsets_s={"pi-1": 3.0})
    Exposition("edge", bus).page()
    assert presence.unpublished


async def test_metrics_are_beside_the_health_endpoints(address):
    """`GET /metrics` answers on the address of the probes; ready is 1 while /readyz answers 200."""
    bus = bus_to(address)
    health = HealthServer(
        f"127.0.0.1:{(port := free_port())}", bus.unready_reason, Exposition("edge", bus).page
    )
    task = asyncio.create_task(health.run())
    try:
        async with running(bus):
            while True:
                try:
                    page = await asyncio.to_thread(get, port)
                    break
                except OSError:  # it does not listen yet
                    await asyncio.sleep(0.01)
        assert series(page)["gleaner_ready"] == 1
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def get(port: int) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=DEADLINE_S) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return answer.read()


async def test_the_outbox_is_measured(tmp_path):
    """Messages, the larger share of the two bounds, and the age of the oldest."""
    limits = OutboxLimits(max_messages=10, max_bytes=1000)
    async with Database(tmp_path / "a.db", {"outbox": Outbox.MIGRATIONS}) as database:
        outbox = Outbox(database, limits, Counters(), name="photo")
        empty = {one.metric.name: one.value for one in outbox_measurements("photo", outbox, limits)}
        await outbox.put("0" * 32, "t", b"x" * 400)
        found = {one.metric.name: one.value for one in outbox_measurements("photo", outbox, limits)}
    assert set(empty.values()) == {0}
    assert found["gleaner_outbox_unanswered_messages"] == 1
    assert found["gleaner_outbox_utilization_ratio"] == 0.4
    assert found["gleaner_outbox_oldest_seconds"] >= 0


def test_a_missing_folder_is_not_measured(tmp_path):
    """Free space is that of the folder's file system; without the folder the series is absent."""
    (free,) = disk_measurements(tmp_path)
    assert free.value > 0
    assert list(disk_measurements(tmp_path / "gone")) == []


async def test_the_broker_counts_its_drops(address):
    """The count comes from the broker's own statistics; before the first it is absent, and not 0."""
    bus = bus_to(address)
    drops = BrokerDrops(bus)
    assert list(drops.measurements()) == []
    async with running(bus):
        found: list[Measurement] = []
        await eventually(lambda: bool(found.extend(drops.measurements()) or found))
    assert found[-1] == Measurement(catalogue.BROKER_DROPS, 0)


def test_the_end_of_certificates_is_measured(tmp_path):
    """That of the client certificate and of the CA, read again each time; a file without one is left out."""
    signer = certificates.new_key()
    authority = Authority(certificates.authority_certificate(signer, "ca", days=10), signer)
    key = certificates.new_key()
    for name, content in (
        ("ca", authority.certificate),
        ("key", key),
        ("client", certificates.client_certificate(authority, key, "edge-1.edge", days=2)),
    ):
        (tmp_path / name).write_bytes(content)
    tls = Tls(ca=str(tmp_path / "ca"), certificate=str(tmp_path / "client"), key=str(tmp_path / "key"))
    found = {one.labels: one.value for one in certificate_measurements(Broker(tls=tls))}
    for name in ("client", "ca"):
        loaded = x509.load_pem_x509_certificate((tmp_path / name).read_bytes())
        assert found[name,] == loaded.not_valid_after_utc.timestamp()
    (tmp_path / "client").write_bytes(key)
    assert [one.labels for one in certificate_measurements(Broker(tls=tls))] == [("ca",)]
    assert list(certificate_measurements(Broker())) == []


def test_counters_without_a_metric_are_left_out():
    """The series of a service are those of the catalogue."""
    found = list(
        counter_measurements("edge", {"photo.suspected": 4, "result.no-such": 1, "sample.stored": 1})
    )
    assert {one.value for one in found} == {0}
    assert {one.metric.name for one in found} >= {"gleaner_results", "gleaner_outbox_messages"}
