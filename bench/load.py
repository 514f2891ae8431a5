"""Generate load: open loop by a schedule, or closed loop with a fixed number of photos in flight.

In the open loop a photo is sent at its scheduled time, however many are in flight, and its latency counts
from that time. Otherwise one slow answer would delay the following photos without showing in their latencies
(coordinated omission; G. Tene, "How NOT to Measure Latency", 2013).
"""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

Request = Callable[[bytes], Awaitable[None]]
"""Sends a photo and returns with its result; raises RequestFailedError for any other answer."""


class RequestFailedError(Exception):
    """The answer to a photo was not a classification."""


@dataclass(frozen=True, slots=True)
class LoadResult:
    """Result of a load.

    Args:
        latencies_s: Latencies of the photos that were classified.
        failed: Number of photos with another answer or none.
        took_s: Duration of the load.
    """

    latencies_s: list[float]
    failed: int
    took_s: float

    @property
    def per_s(self) -> float:
        """Photos classified per second."""
        return len(self.latencies_s) / self.took_s


def arrivals(per_s: float, seconds: float, seed: int = 0) -> list[float]:
    """Return the scheduled times of photos in seconds: a Poisson process, as of independent cameras."""
    draw, at_s = random.Random(seed), 0.0  # noqa: S311  # no adversary
    due = []
    while (at_s := at_s + draw.expovariate(per_s)) < seconds:
        due.append(at_s)
    return due


async def open_loop(
    request: Request, photos: Sequence[bytes], due_s: Sequence[float], timeout_s: float
) -> LoadResult:
    """Send photos by a schedule.

    Args:
        request: Sends a photo.
        photos: Used in turn.
        due_s: Scheduled time of each photo, in seconds from now.
        timeout_s: Time after the last photo after which missing answers count as failed.
    """
    loop = asyncio.get_running_loop()
    started_at = loop.time()
    latencies_s: list[float] = []

    async def send(photo: bytes, scheduled: float) -> None:
        await request(photo)
        latencies_s.append(loop.time() - scheduled)

    sent = []
    for photo, due in zip(itertools.cycle(photos), due_s, strict=False):
        # Never waits for an answer: the schedule does not depend on the server.
        await asyncio.sleep(max(0.0, started_at + due - loop.time()))
        sent.append(asyncio.create_task(send(photo, started_at + due)))
    if sent:
        await asyncio.wait(sent, timeout=timeout_s)
    took_s = loop.time() - started_at
    for task in sent:
        task.cancel()
    _raise_unexpected(await asyncio.gather(*sent, return_exceptions=True))
    return LoadResult(latencies_s, len(sent) - len(latencies_s), took_s)


async def closed_loop(
    request: Request,
    photos: Sequence[bytes],
    *,
    at_once: int,
    seconds: float,
    warmup_s: float,
    timeout_s: float = 60.0,
    watch: Callable[[], None] = lambda: None,
) -> LoadResult:
    """Keep a fixed number of photos in flight.

    Args:
        request: Sends a photo.
        photos: Used in turn.
        at_once: Number of photos in flight.
        seconds: Duration in which answers are counted.
        warmup_s: Time before the counting starts.
        timeout_s: Time for the last answers, which are not counted.
        watch: Called when the counting starts and when it ends.
    """
    loop = asyncio.get_running_loop()
    begin = loop.time() + warmup_s
    end = begin + seconds
    turns = itertools.cycle(photos)
    latencies_s: list[float] = []
    failed = 0

    async def send_repeatedly() -> None:
        nonlocal failed
        while (sent := loop.time()) < end:
            try:
                await request(next(turns))
            except RequestFailedError:
                failed += 1
                continue
            if begin <= loop.time() < end:  # by the end of the request: rate is answers per time
                latencies_s.append(loop.time() - sent)

    loop.call_at(begin, watch)
    loop.call_at(end, watch)
    asking = [asyncio.create_task(send_repeatedly()) for _ in range(at_once)]
    await asyncio.wait(asking, timeout=warmup_s + seconds + timeout_s, return_when=asyncio.FIRST_EXCEPTION)
    for task in asking:
        task.cancel()
    _raise_unexpected(await asyncio.gather(*asking, return_exceptions=True))
    return LoadResult(latencies_s, failed, seconds)


def _raise_unexpected(errors: Sequence[object]) -> None:
    """Raise an error that is neither an answer nor a timeout: the measurement itself is broken."""
    for error in errors:
        if isinstance(error, Exception) and not isinstance(error, RequestFailedError):
            raise error
