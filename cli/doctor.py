"""Check the broker, an edge and its model, and suggest a fix for each failure."""

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
from schemas.events import EventName
from schemas.messages import Event, Photo, Result, Status
from schemas.topics import CLOUD, EVENT, PHOTO, RESULT, STATUS

T = TypeVar("T")

_PACKAGES = ("gleaner", "aiomqtt", "paho-mqtt", "msgpack", "msgspec", "grpcio", "tensorflow", "pylance")
_SYS_VERSION = "$SYS/broker/version"
_SYS_DROPPED = "$SYS/broker/publish/messages/dropped"
_STALE_S = 60
"""Age in seconds from which a status is stale; a running component publishes one every 15 s."""

_REJECTION_WORDS = ("refused", "rejected", "shed", "dropped", "overflowed", "malformed", "unmatched")
"""Parts of the names of counters that count messages which were not accepted."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check.

    Args:
        passed: Whether it is as it should be.
        subject: What was checked.
        found: What was found.
        advice: What to do if it failed.
    """

    passed: bool
    subject: str
    found: str
    advice: str = ""


def _passed(subject: str, found: str) -> Finding:
    return Finding(passed=True, subject=subject, found=found)


def _failed(subject: str, found: str, advice: str) -> Finding:
    return Finding(passed=False, subject=subject, found=found, advice=advice)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--node", type=options.name, default="edge-1", help="edge node to check (default: edge-1)"
    )
    parser.add_argument(
        "--timeout",
        metavar="S",
        type=options.positive(float),
        default=5.0,
        help="seconds for each check (default: 5)",
    )
    options.add_broker(parser)


def run(arguments: Namespace) -> int:
    """Print the outcome of each check; return 0 if all passed."""
    log.configure("error")
    passed = run_service.run(_check_all(arguments))
    return 0 if passed else 1


async def _check_all(arguments: Namespace) -> bool:
    passed = True
    async for finding in _findings(arguments):
        print(f"{'ok  ' if finding.passed else 'FAIL'} {finding.subject}: {finding.found}", flush=True)
        if not finding.passed:
            passed = False
            print(f"     → {finding.advice}")
    return passed


async def _findings(arguments: Namespace) -> AsyncIterator[Finding]:
    yield _passed("versions", _versions())
    checks = _Checks(arguments)
    async with asyncio.TaskGroup() as tasks:
        connection = tasks.create_task(checks.bus.run())
        reachable = await checks.broker()
        yield reachable
        if reachable.passed:  # without a broker every other check would fail for the same reason
            for check in (checks.probe, checks.dropped, checks.edge):
                yield await check()
            yield checks.model()
            yield checks.refused()
            yield await checks.answer()
        connection.cancel()


class _Checks:
    """The checks, which share one connection."""

    def __init__(self, arguments: Namespace) -> None:
        self._node, self._timeout_s = arguments.node, arguments.timeout
        # A name of its own: a result that another doctor has asked for must not count here.
        self._name = f"doctor-{secrets.token_hex(4)}"
        self._broker = options.broker(arguments)
        self._status: Status | None = None
        self.bus = connect.bus(arguments, "doctor")
        # Subscribed before the connection exists, so that no retained status and no answer is missed.
        self._events = self.bus.subscribe(EVENT, node=CLOUD, name="operator")
        self._results = self.bus.subscribe(RESULT, node=self._node, device=self._name)
        self._statuses = self.bus.subscribe(STATUS, node=self._node, name="edge")
        self._sys_version = self.bus.subscribe_raw(_SYS_VERSION)
        self._sys_dropped = self.bus.subscribe_raw(_SYS_DROPPED)

    async def broker(self) -> Finding:
        """Check that the broker can be reached."""
        address = f"{self._broker.host}:{self._broker.port}"
        if await self._within(self.bus.connected()) is None:
            return _failed(
                "broker",
                f"no connection to {address} in {self._timeout_s:g} s: {self.bus.last_error}",
                "start one with 'gleaner broker', or set --config or --broker, --username and --ca",
            )
        reported = await self._within(self._sys_version.get())
        kind = reported.payload.decode(errors="replace") if reported else "unknown version"
        return _passed("broker", f"{address}, {kind}")

    async def probe(self) -> Finding:
        """Check that a published message is delivered back to this client."""
        started = time.monotonic()
        event = Event(
            node=CLOUD,
            name="operator",
            event=EventName.DOCTOR_PROBED,
            at_ms=now_ms(),
            facts={"probe": self._name},
        )
        await self.bus.publish(EVENT, event, node=CLOUD, name="operator")
        if await self._within(self._returned(event)) is None:
            return _failed(
                "probe",
                "the published message was not delivered",
                "check the ACL of the broker for this user",
            )
        return _passed("probe", f"round trip in {(time.monotonic() - started) * 1000:.1f} ms")

    async def _returned(self, event: Event) -> Event:
        """Wait for this event; another doctor may publish on the same topic."""
        while (await self._events.queue.get()).message() != event:
            continue
        return event

    async def dropped(self) -> Finding:
        """Check that the broker has not dropped messages; mosquitto does so without telling the clients."""
        reported = await self._within(self._sys_dropped.get())
        if reported is None:  # not mosquitto, or its ACL hides $SYS
            return _passed("dropped", "not reported by this broker")
        return Finding(
            reported.payload.strip() == b"0",
            "dropped",
            f"{reported.payload.decode(errors='replace')} messages since the broker started",
            "set max_queued_messages 1000000 and a memory_limit in mosquitto.conf; senders resend",
        )

    async def edge(self) -> Finding:
        """Check that the retained status of the edge is recent and online."""
        subject = f"edge {self._node}"
        delivery = await self._within(self._statuses.queue.get())
        if delivery is None:
            return _failed(
                subject,
                "no status on this broker",
                f"start it with 'gleaner edge --node {self._node}' and this broker",
            )
        self._status = status = delivery.message()
        age_s = (now_ms() - status.at_ms) / 1000
        found = f"{status.state}, gleaner {status.software}, reported {age_s:.0f} s ago"
        if status.reason:
            found += f": {status.reason}"
        advice = "read its log, and follow its status with 'gleaner tail status/#'"
        if status.state == "offline":
            advice = f"start it with 'gleaner edge --node {self._node}'"
        return Finding(status.state == "online" and age_s < _STALE_S, subject, found, advice)

    def model(self) -> Finding:
        """Check that the model server of the edge serves a model, as its status reports."""
        model = None if self._status is None else self._status.model
        if model is None:
            return _failed("model", "none reported by the edge", "wait for its next status and try again")
        if model.state == "available":
            return _passed("model", f"{model.name} version {model.version} is served")
        return _failed(
            "model",
            f"{model.name} is {model.state}: {model.reason or 'no reason given'}",
            "start 'gleaner modelserver', check the edge's --serving, release with 'gleaner cloud release'",
        )

    def refused(self) -> Finding:
        """Report the counters of messages that the edge did not accept."""
        # Never a failure: that limits are enforced is what they are for.
        counters = {} if self._status is None else self._status.counters
        counted = [
            f"{name} {count}"
            for name, count in sorted(counters.items())
            if count and any(word in name for word in _REJECTION_WORDS)
        ]
        return _passed("refused", f"{', '.join(counted)} since the edge started" if counted else "nothing")

    async def answer(self) -> Finding:
        """Check that the edge answers a photo."""
        # The photo has expired: the edge rejects it, so that this check is neither classified nor harvested.
        started = time.monotonic()
        photo = Photo(
            photo_id=secrets.token_hex(16),
            node=self._node,
            device=self._name,
            image=b"\xff\xd8",  # the expiry is checked first, so it need not be a whole JPEG
            expires_at_ms=1,
        )
        await self.bus.publish(PHOTO, photo, node=self._node, device=self._name)
        delivery = await self._within(self._results.queue.get())
        if delivery is None:
            return _failed("answer", f"none in {self._timeout_s:g} s", "check that the edge uses this broker")
        result: Result = delivery.message()
        expected = result.photo_id == photo.photo_id and result.code == "expired"
        took_ms = (time.monotonic() - started) * 1000
        return Finding(
            expected, "answer", f"from the edge in {took_ms:.1f} ms", f"unexpected result: {result}"
        )

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
