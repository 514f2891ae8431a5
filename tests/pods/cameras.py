"""Cameras at the nodes' brokers, and the account of what became of their photos."""

import asyncio
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bus.config import Broker, Tls
from device.config import DeviceConfig
from schemas.errors import PermanentError
from tests.faults import configs, databases
from tests.faults.components import Command, Line
from tests.faults.databases import Contents
from tests.faults.event_counter import EventCounter
from tests.faults.laboratory import finish
from tests.faults.ledger import Ledger, compare
from tests.nodes import toml
from tests.pods import storage
from tests.pods.lab import PodLab

_LOOK_S = 0.5
_STORED_S = 600.0
_EDGE_DATABASE = "/var/lib/gleaner/edge/edge.db"


@dataclass(slots=True)
class Camera:
    """A camera, which replays known photos.

    Args:
        node: Its node.
        name: Its name at the node.
        folder: For its outbox and results.
        command: Its process.
    """

    node: str
    name: str
    folder: Path
    command: Command
    answered: EventCounter = field(default_factory=EventCounter)

    @property
    def database(self) -> Path:
        """Its outbox and results."""
        return self.folder / f"{self.name}.db"


class Cameras:
    """Cameras at the brokers of some nodes, from `start` to `settle`.

    Args:
        lab: The laboratory; the nodes' handlers harvest every photo, see `harvest_all`.
        folder: For their files.
        interval_s: Seconds between two photos of a camera.
        nodes: Where they are; each has `pi-1`.
    """

    def __init__(self, lab: PodLab, folder: Path, interval_s: float, nodes: Sequence[str]) -> None:
        self._lab = lab
        self.folder = folder
        configs.take_photos(folder / "photos")
        self.cameras = {node: self._camera(node, "pi-1", interval_s) for node in nodes}

    async def start(self) -> None:
        """Start all cameras."""
        for camera in self.cameras.values():
            await camera.command.start()

    async def answers(self, count: int = 1, *, within_s: float = 300.0) -> float:
        """Wait until each camera got this many more results; return the seconds that it took."""
        began = time.monotonic()
        async with asyncio.timeout(within_s):
            await asyncio.gather(*(_results(camera, count) for camera in self.cameras.values()))
        return time.monotonic() - began

    async def keep_answering(self, for_s: float) -> float:
        """Wait for a time in which each camera gets results; return the longest wait for one, in seconds."""
        longest, ends = 0.0, time.monotonic() + for_s
        while time.monotonic() < ends:
            longest = max(longest, await self.answers())
        return longest

    def worst_ms(self) -> float:
        """Return the longest time from a photo to its result so far, in milliseconds."""
        return max((line.round_trip_ms or 0.0 for line in self._lines()), default=0.0)

    def median_ms(self) -> float:
        """Return the median time from a photo to its result so far, in milliseconds."""
        return statistics.median([line.round_trip_ms or 0.0 for line in self._lines()] or [0.0])

    async def settle(self) -> Ledger:
        """Stop taking photos, wait until each is answered and each sample is stored, and compare.

        Only photos of these cameras count, so that one laboratory serves many tests.
        """
        async with asyncio.timeout(_STORED_S):
            await asyncio.gather(*(finish(camera.command) for camera in self.cameras.values()))
        for camera in self.cameras.values():
            await camera.command.stop()
        devices = [databases.read(camera.database) for camera in self.cameras.values()]
        ours = {answer.photo_id for device in devices for answer in device.answers}
        deadline = time.monotonic() + _STORED_S
        while True:
            ledger = await asyncio.to_thread(self._compare, devices, ours)
            if not ledger.samples_lost or time.monotonic() > deadline:
                return ledger
            await asyncio.sleep(_LOOK_S)

    async def kill(self) -> None:
        """End all cameras."""
        for camera in self.cameras.values():
            await camera.command.kill()

    def _compare(self, devices: list[Contents], ours: set[str]) -> Ledger:
        answers = [
            answer for node in self.cameras for answer in self._edge(node).answers if answer.photo_id in ours
        ]
        rows = [row for row in _rows(storage.store(self._lab.cloud.machine)) if row.photo_id in ours]
        photos = (self.folder / "photos").rglob("*.jpg")
        known = {photo.read_bytes(): photo.parent.name for photo in photos}
        return compare(devices, Contents(answers=tuple(answers)), rows, self._lines(), known)

    def _edge(self, node: str) -> Contents:
        """Read a copy of the database of a handler that is running."""
        database = self._lab.edges[node].machine.root(_EDGE_DATABASE)
        with tempfile.TemporaryDirectory() as folder:
            for part in database.parent.glob(f"{database.name}*"):
                shutil.copy(part, folder)
            return databases.read(Path(folder, database.name))

    def _camera(self, node: str, name: str, interval_s: float) -> Camera:
        at, answered = self.folder / node, EventCounter()
        identity = self._lab.site / "devices" / f"{node}.{name}"
        config = DeviceConfig(
            node=node,
            name=name,
            broker=Broker(
                host=self._lab.edges[node].machine.lan,
                port=8883,
                keepalive_s=5,
                tls=Tls(
                    ca=str(identity / "ca.pem"),
                    certificate=str(identity / "device.pem"),
                    key=str(identity / "device.key"),
                ),
            ),
            camera=f"folder:{self.folder / 'photos'}?loop=1&shuffle={node[-1]}",
            interval_s=interval_s,
            state_dir=str(at),
            answers_kept=1_000_000,
            outbox=configs.RESEND,
        )
        at.mkdir(parents=True)
        words = ("device", "--json", "--config", str(toml(config, at / "device.toml")))
        return Camera(
            node, name, at, Command(f"{node}-{name}", at, *words, variant=None, counter=answered), answered
        )

    def _lines(self) -> list[Line]:
        return [line for camera in self.cameras.values() for line in camera.command.lines]


async def _results(camera: Camera, count: int) -> None:
    for _ in range(count):
        await camera.answered.next()


def _rows(store: Path) -> list[databases.Row]:
    try:
        return databases.rows(store / "dataset.lance")
    except (PermanentError, OSError, sqlite3.Error):
        return []  # nothing was stored yet
