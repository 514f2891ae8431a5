"""A console with an open page, and what it is shown while nodes are killed."""

import asyncio
import contextlib
import itertools
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import aiohttp

from bench.photos import NODE
from bus.config import Broker
from bus.mqtt.client import Bus
from bus.mqtt.errors import BrokerConnectionError
from bus.mqtt.presence import now_ms
from console import service
from console.config import ConsoleConfig
from console.context import Console
from schemas.messages import Event, Result
from schemas.topics import EVENT, RESULT

_EVERY_S = 0.5
_AGAIN_S = 0.2
_SETTLE_S = 60.0


class Shown(NamedTuple):
    """How many messages of a kind were published, and how many the console has.

    Attributes:
        published: whose publication the broker confirmed.
        known: of these, in the console's memory.
        longest_silence_s: longest time in which the page was not told of any.
    """

    published: int
    known: int
    longest_silence_s: float


class WatchedConsole:
    """A real console, and the stream of changes of one page.

    Args:
        console: As started.
        address: One-time address for a browser.
    """

    def __init__(self, console: Console, address: str) -> None:
        self._console = console
        self._address = address
        self._changed_at: dict[str, float] = {}
        self._silence_s: dict[str, float] = {}
        self._results: set[str] = set()
        self._events: set[int] = set()

    async def follow(self) -> None:
        """Read the page's stream until cancelled."""
        # Unsafe: it would keep no cookie of a host without a name.
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
            async with browser.get(self._address) as page:
                page.raise_for_status()
            timeout = aiohttp.ClientTimeout(total=None)
            async with browser.get(page.url.origin() / "live", timeout=timeout) as stream:
                stream.raise_for_status()
                async for line in stream.content:
                    if line.startswith(b"event: "):
                        self._note(line.removeprefix(b"event: ").strip().decode())

    def _note(self, kind: str) -> None:
        now = time.monotonic()
        silence_s = now - self._changed_at.get(kind, now)
        self._changed_at[kind], self._silence_s[kind] = now, max(silence_s, self._silence_s.get(kind, 0.0))

    async def publish_results(self, bus: Bus) -> None:
        """Publish a result twice a second as the handler of a direct edge does, until cancelled."""
        while True:
            photo_id = secrets.token_hex(16)
            result = Result(
                photo_id=photo_id, node=NODE, device="pi-1", status="ok", label="cat", answered_at_ms=now_ms()
            )
            await _until_confirmed(partial(bus.publish, RESULT, result, node=NODE, device="pi-1"))
            self._results.add(photo_id)
            await asyncio.sleep(_EVERY_S)

    async def publish_events(self, bus: Bus, node: str) -> None:
        """Publish an event twice a second at the broker of an edge behind the gateway, until cancelled."""
        for number in itertools.count():
            event = Event(node=node, name="edge", event="bench", at_ms=now_ms(), facts={"number": number})
            await _until_confirmed(partial(bus.publish, EVENT, event, node=node, name="edge"))
            self._events.add(number)
            await asyncio.sleep(_EVERY_S)

    async def settled(self) -> dict[str, Shown]:
        """Return what it was shown of each kind, once it has all, or nothing more has come for a while."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_S):
                while any(one.known < one.published for one in self._shown().values()):  # noqa: ASYNC110  # of another component
                    await asyncio.sleep(_AGAIN_S)
        return self._shown()

    def _shown(self) -> dict[str, Shown]:
        live = self._console.live
        results = {one.photo_id for one in live.recent.of(NODE)}
        events = {one.facts.get("number") for one in live.events if one.event == "bench"}
        return {
            kind: Shown(len(published), len(published & known), self._silence_s.get(kind, 0.0))
            for kind, published, known in (
                ("results", self._results, results),
                ("events", self._events, events),
            )
        }


@contextlib.asynccontextmanager
async def running(folder: Path, dataset: str, broker_port: int) -> AsyncIterator[WatchedConsole]:
    """Run a console for the length of a block, entered when its page is open."""
    ready: asyncio.Future[tuple[str, Console]] = asyncio.get_running_loop().create_future()
    config = ConsoleConfig(
        broker=Broker(port=broker_port, keepalive_s=5),
        listen="127.0.0.1:0",
        dataset=dataset,
        models=str(folder / "models"),
        state_dir=str(folder / "state"),
    )
    served = asyncio.create_task(
        service.run(config, on_ready=lambda address, console: ready.set_result((address, console)))
    )
    try:
        served.add_done_callback(partial(_report_failure, ready))
        address, console = await ready
        watched = WatchedConsole(console, address)
        following = asyncio.create_task(watched.follow())
        try:
            yield watched
            assert not following.done(), following
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
    finally:
        served.cancel()
        await asyncio.gather(served, return_exceptions=True)


async def _until_confirmed(publish: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await publish()
        except BrokerConnectionError:
            await asyncio.sleep(_AGAIN_S)
        else:
            return


def _report_failure(ready: asyncio.Future[tuple[str, Console]], served: asyncio.Task[None]) -> None:
    """Pass on why a console could not start."""
    if not ready.done() and not served.cancelled():
        ready.set_exception(served.exception() or RuntimeError("the console ended"))
