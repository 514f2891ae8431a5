"""Check this machine, the broker, the edge and its model, and say what to do about each failure."""

import asyncio
import platform
import secrets
import time
from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TypeVar

from bus import log
from bus.mqtt.presence import now_ms
from cli import connect, options, run_service
from schemas.messages import Event, Photo, Result, Status
from schemas.topics import CLOUD, EVENT, PHOTO, RESULT, STATUS

T = TypeVar("T")

_PACKAGES = ("gleaner", "aiomqtt", "paho-mqtt", "msgpack", "msgspec", "grpcio", "tensorflow", "pylance")
_SYS_VERSION = "$SYS/broker/version"
_SYS_DROPPED = "$SYS/broker/publish/messages/dropped"
_STALE_S = 60
_REFUSALS = ("refused", "rejected", "shed", "dropped", "overflowed", "malformed", "unmatched")
"""What the counters are called that count what was not taken."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: whether it passed, what was found, and what to do if it did not."""

    passed: bool
    subject: str
    found: str
    advice: str = ""


def _good(subject: str, found: str) -> Finding:
    return Finding(passed=True, subject=subject, found=found)


def _bad(subject: str, found: str, advice: str) -> Finding:
    return Finding(passed=False, subject=subject, found=found, advice=advice)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--node", type=options.name, default="edge-1", help="edge node to check (edge-1)")
    parser.add_argument(
        "--timeout", metavar="S", type=options.positive(float), default=5.0, help="for each check (5)"
    )
    options.add_broker(parser)


def run(arguments: Namespace) -> int:
    """Print each finding; 0 if all is well."""
    log.configure("error")
    passed = run_service.run(_examine(arguments))
    return 0 if passed else 1


async def _examine(arguments: Namespace) -> bool:
    passed = True
    async for finding in _findings(arguments):
        print(f"{'ok  ' if finding.passed else 'FAIL'} {finding.subject}: {finding.found}", flush=True)
        if not finding.passed:
            passed = False
            print(f"     → {finding.advice}")
    return passed


async def _findings(arguments: Namespace) -> AsyncIterator[Finding]:
    yield _good("versions", _versions())
    patient = _Patient(arguments)
    async with asyncio.TaskGroup() as tasks:
        connection = tasks.create_task(patient.bus.run())
        reachable = await patient.broker()
        yield reachable
        if reachable.passed:
            for check in (patient.probe, patient.dropped, patient.edge):
                yield await check()
            yield patient.model()
            yield patient.refused()
            yield await patient.answer()
        connection.cancel()


class _Patient:
    """The checks, over one connection."""

    def __init__(self, arguments: Namespace) -> None:
        self._node, self._timeout_s = arguments.node, arguments.timeout
        self._name = f"doctor-{secrets.token_hex(4)}"
        self._broker = options.broker(arguments)
        self._status: Status | None = None
        self.bus = connect.bus(arguments, "doctor")
        self._events = self.bus.subscribe(EVENT, node=CLOUD, name="operator")
        self._results = self.bus.subscribe(RESULT, node=self._node, device=self._name)
        self._statuses = self.bus.subscribe(STATUS, node=self._node, name="edge")
        self._sys_version = self.bus.subscribe_raw(_SYS_VERSION)
        self._sys_dropped = self.bus.subscribe_raw(_SYS_DROPPED)

    async def broker(self) -> Finding:
        """Connect and subscribe."""
        address = f"{self._broker.host}:{self._broker.port}"
        if await self._within(self.bus.connected()) is None:
            return _bad(
                "broker",
                f"no connection to {address} within {self._timeout_s:g} s: {self.bus.last_error}",
                "start one with `gleaner broker`, or name yours with --config or --broker, --username, --ca",
            )
        told = await self._within(self._sys_version.get())
        kind = told.payload.decode(errors="replace") if told else "unknown kind"
        return _good("broker", f"{address}, {kind}")

    async def probe(self) -> Finding:
        """Send a message through the broker and back."""
        began = time.monotonic()
        event = Event(
            node=CLOUD, name="operator", event="doctor.probed", at_ms=now_ms(), facts={"probe": self._name}
        )
        await self.bus.publish(EVENT, event, node=CLOUD, name="operator")
        if await self._within(self._returned(event)) is None:
            return _bad(
                "probe",
                "published, but it did not come back",
                "check the broker's access rules for this user",
            )
        return _good("probe", f"there and back in {(time.monotonic() - began) * 1000:.1f} ms")

    async def _returned(self, event: Event) -> Event:
        """Wait for an event of ours; another doctor may be at work."""
        while (await self._events.queue.get()).message() != event:
            continue
        return event

    async def dropped(self) -> Finding:
        """Look whether the broker dropped messages in silence."""
        told = await self._within(self._sys_dropped.get())
        if told is None:
            return _good("dropped", "the broker does not tell")
        return Finding(
            told.payload.strip() == b"0",
            "dropped",
            f"{told.payload.decode(errors='replace')} messages since the broker started",
            "set max_queued_messages 1000000 and a memory_limit in mosquitto.conf; senders will resend",
        )

    async def edge(self) -> Finding:
        """Read the retained status of the edge."""
        subject = f"edge {self._node}"
        delivery = await self._within(self._statuses.queue.get())
        if delivery is None:
            return _bad(
                subject,
                "never reported",
                f"start it with `gleaner edge --node {self._node}`, on this broker",
            )
        self._status = status = delivery.message()
        age_s = (now_ms() - status.at_ms) / 1000
        found = f"{status.state}, gleaner {status.software}, reported {age_s:.0f} s ago"
        if status.reason:
            found += f": {status.reason}"
        advice = "see its log; `gleaner tail status/#` follows its reports"
        if status.state == "offline":
            advice = f"start it with `gleaner edge --node {self._node}`"
        return Finding(status.state == "online" and age_s < _STALE_S, subject, found, advice)

    def model(self) -> Finding:
        """Read from the status what the edge's model server serves."""
        model = None if self._status is None else self._status.model
        if model is None:
            return _bad("model", "the edge reports none", "wait for the edge's next report, then try again")
        if model.state == "available":
            return _good("model", f"{model.name} version {model.version} is served")
        return _bad(
            "model",
            f"{model.name} is {model.state}: {model.reason or 'no reason given'}",
            "start `gleaner modelserver`, check the edge's --serving, and `gleaner cloud release` a model",
        )

    def refused(self) -> Finding:
        """Read from the status what the edge refused or gave back: its bounds at work, no failure."""
        counters = {} if self._status is None else self._status.counters
        counted = [
            f"{name} {count}"
            for name, count in sorted(counters.items())
            if count and any(word in name for word in _REFUSALS)
        ]
        return _good("refused", f"{', '.join(counted)} since the edge started" if counted else "nothing")

    async def answer(self) -> Finding:
        """Ask with a photo that has expired: it is rejected, neither classified nor harvested."""
        began = time.monotonic()
        photo = Photo(
            photo_id=secrets.token_hex(16),
            node=self._node,
            device=self._name,
            image=b"\xff\xd8",
            expires_at_ms=1,
        )
        await self.bus.publish(PHOTO, photo, node=self._node, device=self._name)
        delivery = await self._within(self._results.queue.get())
        if delivery is None:
            return _bad(
                "answer", f"none within {self._timeout_s:g} s", "is the edge connected to this broker?"
            )
        result: Result = delivery.message()
        expected = result.photo_id == photo.photo_id and result.code == "expired"
        took_ms = (time.monotonic() - began) * 1000
        return Finding(expected, "answer", f"from the edge in {took_ms:.1f} ms", f"unexpected: {result}")

    async def _within(self, waiting: Awaitable[T]) -> T | None:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await waiting
        except TimeoutError:
            return None


def _versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)
