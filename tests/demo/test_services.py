"""Rules of demo/services.py and of a demonstration that stays: the console is there, and cameras continue."""

import asyncio
import urllib.request
from pathlib import Path

from bus.config import Broker
from bus.mqtt.client import Bus
from demo.cameras import AGENTS
from demo.photos import Collection
from demo.processes import Processes
from demo.run import Demo
from demo.screen import Screen
from demo.services import Services
from schemas.topics import CLOUD, PHOTO, STATUS
from tests.conftest import DEADLINE_S


def heading(address: str) -> str:
    """Open an address as a browser does, which keeps cookies; return the heading of the page."""
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    with browser.open(urllib.request.Request(address, headers={"Accept": "text/html"})) as page:
        return str(page.read().decode()).partition("<h1>")[2].partition("</h1>")[0]


async def test_a_demonstration_that_stays_can_be_opened(tmp_path: Path):
    """The printed address opens the console; cameras continue, a trainer waits, and all end on a signal."""
    services = Services(tmp_path)
    demo = Demo("efficientnet-lite0", tmp_path, None, 1, tmp_path, Screen(1), stay=True)
    unused = Collection(tmp_path, {}, 0)
    async with asyncio.timeout(2 * DEADLINE_S), Processes(tmp_path / "logs") as processes:
        await services.start_broker(processes)
        address = await services.start_console(processes)
        assert await asyncio.to_thread(heading, address) == "Now"
        bus = Bus(Broker(port=services.port), "test")
        photos = bus.subscribe(PHOTO)
        statuses = bus.subscribe(STATUS, node=CLOUD, name="trainer")
        async with asyncio.TaskGroup() as tasks:
            connection = tasks.create_task(bus.run())
            staying = tasks.create_task(demo._stay(unused, services, processes))
            seen: set[str] = set()
            while len(seen) < AGENTS:
                seen.add((await photos.queue.get()).names["device"])
            while (await statuses.queue.get()).message().state != "online":
                continue
            demo.leave.set()
            await staying
            connection.cancel()
    assert services.console_address() != address
