"""The checks of `gleaner doctor` over a connection to the broker."""

import asyncio
import secrets
import time
from argparse import Namespace
from collections.abc import AsyncIterator, Awaitable
from typing import TypeVar

from bus.diagnosis.finding import Finding, failed, passed
from bus.diagnosis.status_checks import (
    clocks_finding,
    model_finding,
    refused_finding,
    start_of_edge,
    status_finding,
)
from bus.mqtt.presence import now_ms
from cli import connect, options
from cli.fleet import Fleet
from schemas.events import EventName
from schemas.messages import Event, Photo, Result, Status
from schemas.topics import CLOUD, EVENT, PHOTO, RESULT, STATUS

T = TypeVar("T")

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_SYS_VERSION = "$SYS/broker/version"
_SYS_DROPPED = "$SYS/broker/publish/messages/dropped"


class Checks:
    """The checks, which share one connection."""

    def __init__(self, arguments: Namespace, node: str) -> None:
        self._node, self._timeout_s = node, arguments.timeout
        # A unique name: a result that another doctor has asked for must not count here.
        self._name = f"doctor-{secrets.token_hex(4)}"
        self._broker = options.broker(arguments)
        self._status: Status | None = None
        self.bus = connect.bus(arguments, "doctor")
        # Subscribed before the connection exists, so that no retained status and no answer is missed.
        self._events = self.bus.subscribe(EVENT, node=CLOUD, name="operator")
        self._results = self.bus.subscribe(RESULT, node=self._node, device=self._name)
        self._statuses = self.bus.subscribe(STATUS, node=self._node, name="edge")
        self.fleet = Fleet(self.bus) if arguments.all else None
        # Optional: only mosquitto's kin have these topics, and a broker may hide them.
        self._sys_version = self.bus.subscribe_raw(_SYS_VERSION, optional=True)
        self._sys_dropped = self.bus.subscribe_raw(_SYS_DROPPED, optional=True)

    def _way_to_broker(self, address: str) -> str:
        if self._broker.host in _LOOPBACK:
            return "start one with 'gleaner broker', or set --config or --broker, --username and --ca"
        return (
            f"check that {address} is right and that its broker listens for other machines, which that of "
            "'gleaner broker' does not"
        )

    async def broker(self) -> Finding:
        """Check that the broker can be reached."""
        address = f"{self._broker.host}:{self._broker.port}"
        if await self.within(self.bus.connected()) is None:
            if (hint := self.bus.last_hint) is not None:
                return failed("broker", f"{address} refuses this client: {self.bus.last_error}", hint)
            return failed(
                "broker",
                f"no connection to {address} in {self._timeout_s:g} s: {self.bus.last_error}",
                self._way_to_broker(address),
            )
        reported = await self.within(self._sys_version.get())
        kind = reported.payload.decode(errors="replace") if reported else "unknown version"
        return passed("broker", f"{address}, {kind}")

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
        if await self.within(self._returned(event)) is None:
            return failed(
                "probe",
                "the published message was not delivered",
                "check the ACL of the broker for this user",
            )
        return passed("probe", f"round trip in {(time.monotonic() - started) * 1000:.1f} ms")

    async def _returned(self, event: Event) -> Event:
        """Wait for this event; another doctor may publish on the same topic."""
        while (await self._events.queue.get()).message() != event:
            continue
        return event

    def dropped(self) -> Finding:
        """Check that the broker has not dropped messages; mosquitto does so without telling the clients.

        Call after the probe: what the broker retains was delivered before it.
        """
        if self._sys_dropped.empty():  # mosquitto publishes the number once it is not 0
            return passed("dropped", "none reported by this broker")
        reported = self._sys_dropped.get_nowait()
        return Finding(
            reported.payload.strip() == b"0",
            "dropped",
            f"{reported.payload.decode(errors='replace')} messages since the broker started",
            "set max_queued_messages 1000000 and a memory_limit in mosquitto.conf; senders resend",
        )

    async def node(self) -> AsyncIterator[Finding]:
        """Check the node's handler, its model, and that it answers."""
        yield await self.edge()
        yield self.model()
        yield self.refused()
        if (clocks := self.clocks()) is not None:
            yield clocks
        yield await self.answer()

    async def edge(self) -> Finding:
        """Check that the retained status of the edge is recent and online."""
        subject, start = f"edge {self._node}", start_of_edge(self._node)
        delivery = await self.within(self._statuses.queue.get())
        if delivery is None:
            return failed(subject, "no status on this broker", f"{start} and this broker")
        self._status = delivery.message()
        return status_finding(subject, self._status, start)

    def model(self) -> Finding:
        """Check that the model server of the edge serves a model, as its status reports."""
        return model_finding(self._status)

    def refused(self) -> Finding:
        """Report the counters of messages that the edge did not accept."""
        return refused_finding(self._status)

    def clocks(self) -> Finding | None:
        """Report the devices whose clock is wrong, as the edge sees it; None if it knows of none."""
        return clocks_finding(self._status)

    async def answer(self) -> Finding:
        """Check that the edge answers a photo."""
        # The photo has expired: the edge rejects it, so that this check is neither classified nor harvested.
        started = time.monotonic()
        photo = Photo(
            photo_id=secrets.token_hex(16),
            node=self._node,
            device=self._name,
            image=b"\xff\xd8",  # the expiry is checked first, so a whole JPEG is not necessary
            expires_at_ms=1,
        )
        await self.bus.publish(PHOTO, photo, node=self._node, device=self._name)
        if self.bus.last_unmatched and self._is_online:
            # Its status came here over a bridge, which lets no photos pass.
            return passed("answer", "not asked: the edge takes photos at a broker of its own")
        delivery = await self.within(self._results.queue.get())
        if delivery is None:
            return failed("answer", f"none in {self._timeout_s:g} s", "check that the edge uses this broker")
        result: Result = delivery.message()
        expected = result.photo_id == photo.photo_id and result.code == "expired"
        reason = result.reason or result.code or "no reason given"
        took_ms = (time.monotonic() - started) * 1000
        return Finding(
            expected,
            "answer",
            f"from the edge in {took_ms:.1f} ms",
            f"the photo was {result.status}: {reason}",
        )

    @property
    def _is_online(self) -> bool:
        return self._status is not None and status_finding("", self._status, "").passed

    async def within(self, waiting: Awaitable[T]) -> T | None:
        """Return the result, None if it takes longer than the time for a check."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await waiting
        except TimeoutError:
            return None
