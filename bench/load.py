"""Load on whatever answers photos: open loop by a schedule, or closed loop with so many photos at once.

In the open loop a photo is sent when its time has come, however many wait, and its latency counts from that
time and not from when a busy sender got round to it: otherwise a slow answer would spare the photos behind it
(coordinated omission; G. Tene, "How NOT to Measure Latency", 2013).
"""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

Ask = Callable[[bytes], Awaitable[None]]
"""Sends a photo and returns when it is answered; raises AnswerError if it is refused."""


class AnswerError(Exception):
    """A photo got another answer than a classification."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a load.

    Args:
        latencies_s: Of the photos that were classified.
        failed: Photos that got another answer or none.
        took_s: From the first to the last.
    """

    latencies_s: list[float]
    failed: int
    took_s: float

    @property
    def per_s(self) -> float:
        """Photos classified a second."""
        return len(self.latencies_s) / self.took_s


def arrivals(per_s: float, seconds: float, seed: int = 0) -> list[float]:
    """Return when photos are due, in seconds from the start: independent cameras, a Poisson process."""
    draw, at_s = random.Random(seed), 0.0  # noqa: S311  # chance without an adversary
    due = []
    while (at_s := at_s + draw.expovariate(per_s)) < seconds:
        due.append(at_s)
    return due


async def open_loop(ask: Ask, photos: Sequence[bytes], due_s: Sequence[float], patience_s: float) -> Outcome:
    """Send photos by a schedule.

    Args:
        ask: To whom.
        photos: Taken in turns.
        due_s: When each is due, in seconds from now.
        patience_s: How long after the last the answers may take; what has none then has failed.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    latencies_s: list[float] = []

    async def send(photo: bytes, scheduled: float) -> None:
        await ask(photo)
        latencies_s.append(loop.time() - scheduled)

    sent = []
    for photo, due in zip(itertools.cycle(photos), due_s, strict=False):
        await asyncio.sleep(max(0.0, began + due - loop.time()))
        sent.append(asyncio.create_task(send(photo, began + due)))
    if sent:
        await asyncio.wait(sent, timeout=patience_s)
    took_s = loop.time() - began
    for task in sent:
        task.cancel()
    _raise_foreign(await asyncio.gather(*sent, return_exceptions=True))
    return Outcome(latencies_s, len(sent) - len(latencies_s), took_s)


async def closed_loop(
    ask: Ask,
    photos: Sequence[bytes],
    *,
    at_once: int,
    seconds: float,
    settle_s: float,
    patience_s: float = 60.0,
    watch: Callable[[], None] = lambda: None,
) -> Outcome:
    """Keep so many photos under way.

    Args:
        ask: To whom.
        photos: Taken in turns.
        at_once: How many.
        seconds: What is answered within them is counted.
        settle_s: How long to go on before.
        patience_s: How long the last answers may take; they are not counted.
        watch: Called when the counting begins, and when it ends.
    """
    loop = asyncio.get_running_loop()
    begin = loop.time() + settle_s
    end = begin + seconds
    turns = itertools.cycle(photos)
    latencies_s: list[float] = []
    failed = 0

    async def keep_asking() -> None:
        nonlocal failed
        while (sent := loop.time()) < end:
            try:
                await ask(next(turns))
            except AnswerError:
                failed += 1
                continue
            if begin <= loop.time() < end:
                latencies_s.append(loop.time() - sent)

    loop.call_at(begin, watch)
    loop.call_at(end, watch)
    asking = [asyncio.create_task(keep_asking()) for _ in range(at_once)]
    await asyncio.wait(asking, timeout=settle_s + seconds + patience_s, return_when=asyncio.FIRST_EXCEPTION)
    for task in asking:
        task.cancel()
    _raise_foreign(await asyncio.gather(*asking, return_exceptions=True))
    return Outcome(latencies_s, failed, seconds)


def _raise_foreign(errors: Sequence[object]) -> None:
    """Raise what is no answer and no end of patience: a fault of the measurement itself."""
    for error in errors:
        if isinstance(error, Exception) and not isinstance(error, AnswerError):
            raise error
