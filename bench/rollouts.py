"""Roll one version out to a fleet of simulated edges, some of them offline or unable to take it.

    python -m bench.rollouts --edges 1000 --groups 5

Broker and controller are the real ones. An edge here is its connection and its messages: a retained status
every 15 seconds, a release followed after some seconds, counts as if its devices sent a photo per second.
Those that were offline come back at the end and have to find their release.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from msgspec import structs

from bench import procfs, wire
from bus.broker.process import local_broker
from bus.mqtt.presence import now_ms
from schemas.codec import decode, encode
from schemas.events import EventName
from schemas.messages import CanaryReport, Event, Release, ServedModel, Status, VersionStats
from schemas.topics import EVENT, HANDLERS, RELEASE, STATUS
from tests.cloud.bundles import bundle

_STATUS_S = 15.0
_LOAD_S = (1.0, 4.0)
"""How long an edge takes to fetch and load a version: shortest and longest."""
_PHOTOS_PER_S = 1.0
_CONNECTING = 50
_BACK_S = 60.0
_CHAMPION, _CHALLENGER = 1, 2


@dataclass(slots=True)
class Edge:
    """A simulated edge node.

    Args:
        name: The node.
        refuses: It has no room for any bundle, and reports that.
        messages: What all edges receive and publish, by kind.
    """

    name: str
    refuses: bool
    messages: Counter[str]
    _served: int = _CHAMPION
    _canary: Release | None = None
    _since_ms: int = 0
    _wire: wire.Wire | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def serves_challenger(self) -> bool:
        """Whether it serves the new version to all its devices."""
        return self._served == _CHALLENGER and self._canary is None

    async def run(self, port: int) -> None:
        """Connect, and publish the status until cancelled."""
        self._wire = await wire.connect(port, f"bench-{self.name}", self._take)
        try:
            await self._wire.subscribe(RELEASE.name(node=self.name))
            await asyncio.sleep(random.uniform(0, _STATUS_S))  # noqa: S311  # spreads the statuses, no secret
            while True:
                self._say()
                await asyncio.sleep(_STATUS_S)
        finally:
            self._wire.close()

    def _take(self, _topic: str, payload: bytes) -> None:
        self.messages["releases received"] += 1
        task = asyncio.create_task(self._follow(decode(RELEASE, payload, {"node": self.name})))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow(self, release: Release) -> None:
        if self.refuses:
            refusal = Event(
                node=self.name,
                name=HANDLERS[0],
                event=EventName.MODEL_REFUSED,
                at_ms=now_ms(),
                reason="no space left on the disk",
                facts={"version": release.version},
            )
            self._publish("events", EVENT.name(node=self.name, name=HANDLERS[0]), encode(EVENT, refusal))
            return
        await asyncio.sleep(random.uniform(*_LOAD_S))  # noqa: S311  # no secret
        self._canary = None if release.stage == "all" else release
        if release.stage == "all":
            self._served = release.version
        self._since_ms = now_ms()
        self._say()

    def _say(self) -> None:
        topic = STATUS.name(node=self.name, name=HANDLERS[0])
        self._publish("statuses", topic, encode(STATUS, self._status()), retain=True)

    def _publish(self, kind: str, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self.messages[f"{kind} published"] += 1
        self.messages["bytes published"] += len(payload)
        assert self._wire is not None
        self._wire.publish(topic, payload, retain=retain)

    def _status(self) -> Status:
        status = Status(
            node=self.name,
            name=HANDLERS[0],
            state="online",
            at_ms=now_ms(),
            since_ms=0,
            software="bench",
            run_id="0",
            model=ServedModel(name="pets", version=self._served, state="available"),
            counters={
                f"photo.counter_{number}": number for number in range(30)
            },  # as many as a real edge has
        )
        if self._canary is None:
            return status
        seen = round((now_ms() - self._since_ms) / 1000 * _PHOTOS_PER_S)
        shadow = self._canary.stage == "shadow"
        answered = 0 if shadow else round(seen * self._canary.share)
        report = CanaryReport(
            stage=self._canary.stage,
            champion=VersionStats(version=_CHAMPION, answered=seen - answered),
            challenger=VersionStats(version=_CHALLENGER, answered=answered),
            compared=seen,
            since_ms=self._since_ms,
        )
        return structs.replace(status, canary=report)


async def _until_served(edges: list[Edge]) -> float:
    """Wait until all edges serve the new version; return the seconds, or the limit."""
    began = time.monotonic()
    while not all(edge.serves_challenger for edge in edges) and time.monotonic() - began < _BACK_S:  # noqa: ASYNC110  # of many objects
        await asyncio.sleep(0.1)
    return time.monotonic() - began


async def _roll_out(words: list[str]) -> tuple[int, float, int]:
    """Run the command; return its exit code, its seconds of CPU and its largest memory in bytes."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-P", "-m", "gleaner", *words)
    peak_bytes, used_s = 0, 0.0
    while process.returncode is None:
        peak_bytes = max(peak_bytes, procfs.resident_bytes(process.pid))
        used_s = procfs.cpu_s(process.pid) or used_s
        await asyncio.sleep(0.5)
    return process.returncode, used_s, peak_bytes


async def _connect(edges: list[Edge], port: int, tasks: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
    running = []
    for start in range(0, len(edges), _CONNECTING):
        running += [tasks.create_task(edge.run(port)) for edge in edges[start : start + _CONNECTING]]
        await asyncio.sleep(0.2)
    return running


async def _measure(arguments: argparse.Namespace, folder: Path) -> bool:
    messages: Counter[str] = Counter()
    edges = [
        Edge(f"edge-{number}", number % 100 in (50, 51), messages) for number in range(1, arguments.edges + 1)
    ]
    offline = [edge for number, edge in enumerate(edges) if number % 100 in (20, 40, 60)]
    present = [edge for edge in edges if edge not in offline]
    able = [edge for edge in present if not edge.refuses]
    size = -(-len(edges) // arguments.groups)
    groups = [",".join(edge.name for edge in edges[at : at + size]) for at in range(0, len(edges), size)]
    champion, challenger = (bundle(folder, version) for version in (_CHAMPION, _CHALLENGER))
    with local_broker(folder / "broker") as broker:
        words = [
            "cloud", "rollout", str(challenger), "--champion", str(champion), "--canary-share", "0.5",
            "--stage-s", "5", "--bake-time-s", "15", "--node-timeout-s", "30",
            "--dataset", str(folder / "none.lance"), "--broker", f"127.0.0.1:{broker.port}",
            *(word for group in groups for word in ("--nodes", group)),
        ]  # fmt: skip
        assert broker.pid is not None
        async with asyncio.TaskGroup() as tasks:
            running = await _connect(present, broker.port, tasks)
            await asyncio.sleep(_STATUS_S)
            messages.clear()
            began, broker_s = time.monotonic(), procfs.cpu_s(broker.pid)
            code, controller_s, peak_bytes = await _roll_out(words)
            took_s, broker_s = time.monotonic() - began, procfs.cpu_s(broker.pid) - broker_s
            print(f"{len(present)} of {len(edges)} edges online, {arguments.groups} groups: {took_s:.0f} s")
            for kind, count in sorted(messages.items()):
                print(f"  {kind}: {count}, {count / took_s:.0f} per second")
            print(f"  controller: exit code {code}, {controller_s:.1f} s of CPU, {peak_bytes / 1e6:.0f} MB")
            print(f"  broker: {broker_s:.1f} s of CPU, {procfs.resident_bytes(broker.pid) / 1e6:.0f} MB")
            running += await _connect(offline, broker.port, tasks)
            back_s = await _until_served(offline)
            for task in running:
                task.cancel()
    served, late = (sum(edge.serves_challenger for edge in some) for some in (able, offline))
    print(f"serve it: {served} of {len(able)} that were online and able to", end=", ")
    print(f"{late} of {len(offline)} that came back, after {back_s:.0f} s")
    return code == 0 and served == len(able) and late == len(offline)


def main() -> int:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.rollouts", description=__doc__)
    parser.add_argument("--edges", type=int, default=1000)
    parser.add_argument("--groups", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gleaner-rollouts-") as folder:
        return 0 if asyncio.run(_measure(arguments, Path(folder))) else 1


if __name__ == "__main__":
    raise SystemExit(main())
