"""An edge with scripted results, cameras with scripted frames, and agents under test."""

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from bus.config import Broker
from bus.mqtt.client import Bus, transient_client_id
from device import service
from device.agent import PhotoResult
from device.cameras.base import Camera, CameraExhausted, Frame
from device.config import DeviceConfig
from schemas.messages import Command, Photo, Result, Status
from schemas.topics import COMMAND, PHOTO, RESULT, STATUS
from tests.conftest import DEADLINE_S, ROOT, eventually

NODE, DEVICE = "edge-1", "pi-1"


async def frames(camera: Camera, most: int = 1000) -> list[Frame]:
    """Return the frames of a camera until it is exhausted, at most that many."""
    taken: list[Frame] = []
    async with camera:
        while len(taken) < most:
            try:
                taken.append(await camera.capture())
            except CameraExhausted:
                break
    return taken


def result(photo: Photo, status: str = "ok", **fields: object) -> Result:
    """Return the result of a photo."""
    facts: dict[str, object] = {"label": "cat", "confidence": 0.9} if status == "ok" else {}
    return Result(
        photo_id=photo.photo_id,
        node=photo.node,
        device=photo.device,
        status=status,  # type: ignore[arg-type]  # tests pass a plain str
        answered_at_ms=1,
        **(facts | fields),
    )


class Edge:
    """Record a device's photos and statuses, and publish the results that `reply` returns for each photo."""

    def __init__(self, address: Broker) -> None:
        self.bus = Bus(address, transient_client_id("edge"))
        self.photos: list[Photo] = []
        self.statuses: list[Status] = []
        self.reply: Callable[[Photo], list[Result]] = lambda photo: [result(photo)]
        self._photos = self.bus.subscribe(PHOTO, queue=4096, node=NODE)
        self._statuses = self.bus.subscribe(STATUS, node=NODE)

    @asynccontextmanager
    async def running(self):
        """Run the edge for the length of a block."""
        tasks = [asyncio.create_task(work()) for work in (self.bus.run, self._answer, self._follow)]
        async with asyncio.timeout(DEADLINE_S):
            await self.bus.connected()
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self) -> None:
        async for delivery in self._photos:
            delivery.ack()
            self.photos.append(delivery.message())
            for answer in self.reply(self.photos[-1]):
                await self.publish(answer)

    async def _follow(self) -> None:
        async for delivery in self._statuses:
            delivery.ack()
            self.statuses.append(delivery.message())

    async def publish(self, answer: Result) -> None:
        """Publish a result."""
        await self.bus.publish(RESULT, answer, node=answer.node, device=answer.device)

    async def command(self, action: str, **fields: object) -> None:
        """Publish a command."""
        message = Command(node=NODE, device=DEVICE, action=action, **fields)  # type: ignore[arg-type]  # as above
        await self.bus.publish(COMMAND, message, node=NODE, device=DEVICE)

    async def status(self, state: str) -> Status:
        """Wait until the newest status of the device has that state, and return it."""
        await eventually(lambda: bool(self.statuses) and self.statuses[-1].state == state)
        return self.statuses[-1]

    def taken(self) -> list[Photo]:
        """Return each received photo once, in the order of capture."""
        return sorted({photo.photo_id: photo for photo in self.photos}.values(), key=lambda p: p.sequence)

    async def photo(self, number: int) -> Photo:
        """Wait for the photo with that sequence number."""
        await eventually(lambda: any(photo.sequence == number for photo in self.photos))
        return next(photo for photo in self.photos if photo.sequence == number)


@pytest.fixture
async def edge(address):
    """An edge on the test's broker that classifies every photo."""
    async with Edge(address).running() as edge:
        yield edge


class Scripted:
    """A camera that delivers queued frames and raises queued errors, then waits or repeats one frame."""

    live = True

    def __init__(self, *frames: bytes | Frame | Exception, forever: bytes | None = None) -> None:
        self.forever = forever
        self.frames: asyncio.Queue[bytes | Frame | Exception] = asyncio.Queue()
        for frame in frames:
            self.frames.put_nowait(frame)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def capture(self) -> Frame:
        if self.forever is not None and self.frames.empty():
            return Frame(self.forever, "scripted")
        frame = await self.frames.get()
        if isinstance(frame, Exception):
            raise frame
        return frame if isinstance(frame, Frame) else Frame(frame, "scripted")


class Running:
    """An agent under test: its task, and the results that it reported."""

    def __init__(self, config: DeviceConfig) -> None:
        self.config = config
        self.shown: list[PhotoResult] = []
        self.task = asyncio.create_task(service.run(config, self.shown.append))

    async def ended(self) -> dict[str, int]:
        """Wait until the agent has ended, and return its counters."""
        async with asyncio.timeout(DEADLINE_S):
            return await self.task

    def final(self) -> list[Result]:
        """Return the final results that were reported."""
        return [answer.result for answer in self.shown if answer.result.status != "deferred"]


@pytest.fixture
async def agent(address, tmp_path, monkeypatch):
    """Start agents, each with a scripted camera or with the camera of a specification."""
    agents = []

    def start(camera: Scripted | str, **fields: object) -> Running:
        if isinstance(camera, str):
            fields["camera"] = camera
        else:
            monkeypatch.setattr(service, "open_camera", lambda *_: camera)
        facts = {"broker": address, "interval_s": 0.01, "state_dir": str(tmp_path / "state")}
        agents.append(Running(DeviceConfig(**(facts | fields))))
        return agents[-1]

    yield start
    for running in agents:
        running.task.cancel()
    await asyncio.gather(*(running.task for running in agents), return_exceptions=True)


def recorded(state_dir: str | Path, name: str = DEVICE) -> list[Result]:
    """Return the results in the database of an agent that has ended."""
    with sqlite3.connect(Path(state_dir) / f"{name}.db") as connection:
        rows = connection.execute("SELECT result FROM answer ORDER BY seq").fetchall()
    connection.close()
    return [msgspec.json.decode(row[0], type=Result) for row in rows]


@contextlib.contextmanager
def process(address: Broker, folder: Path, *words: str):
    """Run `gleaner device` as a process, and kill it at the end of the block if it still runs."""
    command = [sys.executable, "-m", "cli.main", "device", "--json", "--broker", f"127.0.0.1:{address.port}"]
    with (folder / "device.log").open("ab") as log:
        running = subprocess.Popen(
            [*command, "--state-dir", str(folder / "state"), *words], cwd=ROOT, stdout=log, stderr=log
        )
    try:
        yield running
    finally:
        running.kill()
        running.wait()
