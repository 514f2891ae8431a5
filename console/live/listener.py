"""Read the topics that the console shows into the live state."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

import structlog

from bus.metrics import Counters
from bus.mqtt.client import Bus
from bus.mqtt.subscription import Subscription
from console.live.broadcast import Broadcast, Kind
from console.live.photo_previews import PhotoPreviews
from console.live.state import LiveState
from schemas.errors import CodecError
from schemas.messages import Event, Forget, Message, Result
from schemas.topics import EVENT, FORGET, PHOTO, POLICY, RELEASE, RESULT, STATUS

M = TypeVar("M", bound=Message)
Take = Callable[[dict[str, str], M | None], None]

log = structlog.get_logger()

_PHOTO_QUEUE = 32


class Listener:
    """Subscriptions of the console. Create it before the bus connects.

    Bounded: of photos, which are large, at most 32 wait; further ones are dropped and counted as
    `bus.overflowed`. Of everything else nothing more is read while 1024 messages of a kind wait.

    Args:
        bus: Not connected yet.
        state: Filled here.
        broadcast: Receives each kind that changed.
        previews: Gets the photos.
        on_event: Called with each event, also with those from before this process.
    """

    def __init__(
        self,
        bus: Bus,
        state: LiveState,
        broadcast: Broadcast,
        previews: PhotoPreviews,
        on_event: Callable[[Event], None],
    ) -> None:
        self._state = state
        self._broadcast = broadcast
        self._previews = previews
        self._on_event = on_event
        self._counters: Counters = bus.counters
        self._results = bus.subscribe(RESULT)
        self._statuses = bus.subscribe(STATUS)
        self._events = bus.subscribe(EVENT)
        self._releases = bus.subscribe(RELEASE)
        self._policies = bus.subscribe(POLICY)
        self._forgets = bus.subscribe(FORGET)
        self._photos = bus.subscribe_raw(PHOTO.filter, queue=_PHOTO_QUEUE)

    async def run(self) -> None:
        """Read until cancelled. Safe to cancel."""
        state = self._state
        async with asyncio.TaskGroup() as tasks:
            reads = (
                self._read(self._results, "results", self._take_result),
                self._read(self._events, "events", self._take_event),
                self._read(
                    self._statuses,
                    "statuses",
                    lambda names, status: state.add_status((names["node"], names["name"]), status),
                ),
                self._read(
                    self._releases, "releases", lambda names, one: state.add_release(names["node"], one)
                ),
                self._read(self._forgets, "statuses", self._take_forget),
                self._read(
                    self._policies, "policies", lambda names, one: state.add_policy(names["node"], one)
                ),
            )
            for read in reads:
                tasks.create_task(read, name="console.listen")
            tasks.create_task(self._read_photos(), name="console.photos")

    def _take_result(self, _: dict[str, str], result: Result | None) -> None:
        if result is not None:
            self._state.add_result(result)

    def _take_forget(self, names: dict[str, str], order: Forget | None) -> None:
        self._state.add_forget(names["node"], order)
        if order is not None:
            self._previews.obey(names["node"], order)

    def _take_event(self, _: dict[str, str], event: Event | None) -> None:
        if event is not None:
            self._state.add_event(event)
            self._on_event(event)

    async def _read(self, subscription: Subscription[M], kind: Kind, take: Take[M]) -> None:
        async for delivery in subscription:
            delivery.ack()
            try:
                # An empty payload removes what the broker had retained.
                message = delivery.message() if delivery.payload else None
            except CodecError as error:
                self._state.unreadable += 1
                self._counters.add("console.unreadable")
                log.debug("console.unreadable", topic=delivery.topic.kind, error=str(error))
                continue
            take(delivery.names, message)
            self._broadcast.changed(kind)

    async def _read_photos(self) -> None:
        while True:
            message = await self._photos.get()
            if await self._previews.add(message.topic, message.payload):
                self._broadcast.changed("photos")
