"""Rules of console/service.py: what runs the console as a service can ask it how it is."""

import asyncio
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bus.broker.process import free_port
from bus.systemd.sd_notify import ALIVE, READY, STOPPING
from console import service
from console.config import ConsoleConfig
from tests.bus.systemd.test_sd_notify import Supervisor
from tests.conftest import DEADLINE_S


@pytest.fixture
def supervisor(tmp_path, monkeypatch):
    """Systemd's socket, named to this process."""
    listening = Supervisor(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(listening.path))
    yield listening
    listening.close()


async def test_the_console_reports_to_systemd_and_prometheus(supervisor, address, tmp_path):
    """Ready, then alive, then stopping; `/metrics`, next to the probes, has its outbox and the open pages."""
    probes = f"127.0.0.1:{free_port()}"
    config = ConsoleConfig(
        broker=address,
        listen="127.0.0.1:0",
        dataset=str(tmp_path / "dataset.lance"),
        models=str(tmp_path / "models"),
        state_dir=str(tmp_path / "console"),
        probes=probes,
    )
    served: asyncio.Queue[object] = asyncio.Queue()
    running = asyncio.create_task(service.run(config, on_ready=lambda *_: served.put_nowait(None)))
    async with asyncio.timeout(DEADLINE_S):
        await served.get()
        said = await asyncio.to_thread(supervisor.until, ALIVE)
    assert READY in said[0]
    found = await asyncio.to_thread(series, probes)
    assert found["gleaner_labels_unrecorded"] == found["gleaner_open_pages"] == 0
    assert found["gleaner_outbox_utilization_ratio"] == 0
    assert found["process_resident_memory_bytes"] > 0
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert [STOPPING] in await asyncio.to_thread(supervisor.until, STOPPING)


def series(address: str) -> dict[str, float]:
    """Return the series of `/metrics` by name; of several the last."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=DEADLINE_S) as answer:
        text = answer.read().decode()
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
