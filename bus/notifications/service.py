"""Run the notifier: a client of the cloud's broker that notifies people of events and silent nodes."""

import asyncio
import time
from functools import partial

import structlog

from bus.health import HealthServer
from bus.mqtt.client import Bus
from bus.mqtt.presence import Presence
from bus.mqtt.subscription import Delivery
from bus.notifications.config import NotifyConfig
from bus.notifications.digest import Digest, News
from bus.notifications.presence_watch import PresenceWatch
from bus.notifications.receivers import Named, Receiver
from bus.observability.exposition import Exposition
from bus.observability.measurements import certificate_measurements
from schemas.errors import CodecError
from schemas.messages import Event, Status
from schemas.topics import CLOUD, EVENT, STATUS

log = structlog.get_logger()

_LONG_S = 3600.0


class Notifier:
    """Sums events and silences up and gives them to the receivers.

    Args:
        config: Which events are sent, and how often.
        bus: Not running yet.
        receivers: Where messages are sent.
    """

    def __init__(self, config: NotifyConfig, bus: Bus, receivers: list[Receiver]) -> None:
        self._told = frozenset(config.events)
        self._bus = bus
        self._receivers = receivers
        self._digest = Digest(config.gather_s, config.every_s)
        self._watch = PresenceWatch(config.silent_s)
        self._changed = asyncio.Event()
        self._number: int | None = None  # of the connection on which silence is measured
        self._events = bus.subscribe(EVENT)
        self._statuses = bus.subscribe(STATUS)

    async def run(self) -> None:
        """Notify until cancelled. Safe to cancel: what was not sent yet is lost."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._take_events(), name="notify.events")
            tasks.create_task(self._take_statuses(), name="notify.statuses")
            tasks.create_task(self._follow_connections(), name="notify.connect")
            tasks.create_task(self._send(), name="notify.send")
            for receiver in self._receivers:
                tasks.create_task(receiver.run(), name="notify.receiver")

    async def _take_events(self) -> None:
        async for delivery in self._events:
            try:
                event: Event = delivery.message()
            except CodecError as error:
                log.warning("event.malformed", error=str(error))
            else:
                if event.event in self._told:
                    self._add(event_news(event))
            delivery.ack()

    async def _take_statuses(self) -> None:
        async for delivery in self._statuses:
            self._take_status(delivery)
            delivery.ack()

    def _take_status(self, delivery: Delivery[Status]) -> None:
        if not delivery.payload:
            self._watch.forget(delivery.names["node"], delivery.names["name"])
            return
        try:
            news = self._watch.take(delivery.message(), time.monotonic())
        except CodecError as error:
            log.debug("status.malformed", error=str(error))
            return
        if news is not None:
            self._add(news)
        self._changed.set()

    async def _follow_connections(self) -> None:
        number = 0
        while True:
            number = await self._bus.connected(after=number)
            self._changed.set()

    def _add(self, news: News) -> None:
        self._digest.add(news, time.monotonic())
        self._changed.set()

    async def _send(self) -> None:
        while True:
            await self._wait()
            now = time.monotonic()
            self._look_for_silence(now)
            if (message := self._digest.take(now)) is not None:
                for receiver in self._receivers:
                    receiver.put(message)

    def _look_for_silence(self, now: float) -> None:
        if (number := self._bus.connection_number) is None:
            return
        if number != self._number:
            self._number = number
            self._watch.connected(now)
        for news in self._watch.newly_silent(now):
            self._digest.add(news, now)

    async def _wait(self) -> None:
        """Wait until a message is due, a component may be silent, or something happened."""
        silence_at = self._watch.next_check_at() if self._bus.connection_number is not None else None
        times = [at for at in (self._digest.due_at, silence_at) if at is not None]
        delay_s = max(0.0, min(times, default=time.monotonic() + _LONG_S) - time.monotonic())
        self._changed.clear()
        try:
            async with asyncio.timeout(delay_s):
                await self._changed.wait()
        except TimeoutError:
            return


def event_news(event: Event) -> News:
    """Return an event as news: where it happened, and why."""
    place = event.node if event.node != CLOUD else event.name
    return News(event.event, f"{place}: {event.reason}" if event.reason else place)


async def run(config: NotifyConfig, receivers: Named, password: str | None = None) -> None:
    """Run the notifier until cancelled.

    Args:
        config: Names and limits.
        receivers: Of `read_receivers`.
        password: Of the broker's user, if it asks for one.

    Raises:
        PermanentError: The broker refuses a subscription.
    """
    presence = Presence(CLOUD, config.name)
    bus = Bus(config.broker, f"gleaner-{CLOUD}-{config.name}", password=password, presence=presence)
    notifier = Notifier(config, bus, [Receiver(name, send_by, bus) for name, send_by in receivers])
    metrics = Exposition("notify", bus, partial(certificate_measurements, config.broker))
    async with asyncio.TaskGroup() as tasks:
        if config.probes is not None:
            health = HealthServer(config.probes, bus.unready_reason, metrics.page)
            tasks.create_task(health.run(), name="notify.probes")
        tasks.create_task(bus.run(), name="notify.bus")
        tasks.create_task(notifier.run(), name="notify.notifier")
