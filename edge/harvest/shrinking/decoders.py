"""Decode photos for the harvest in threads: few at once, each with a deadline."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

import structlog

log = structlog.get_logger()

T = TypeVar("T")

_DECODERS = 2
_DECODE_S = 10.0


class Decoders:
    """Two places for threads that decode; expensive photos share one of them, so that the other stays free.

    Bounded: a photo that gets no place within 10 s, or occupies it for longer, is given up.
    """

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(_DECODERS)  # a decoded photo is a hundred times its encoded size
        self._expensive = asyncio.Semaphore(_DECODERS - 1)

    async def run(self, function: Callable[[], T], *, expensive: bool = False) -> T | None:
        """Run a function that decodes images; return None if that fails or takes too long. Safe to cancel.

        Args:
            function: Called in a thread.
            expensive: Whether it may take much longer than for a usual photo.
        """
        places = (self._expensive, self._places) if expensive else (self._places,)
        held: list[asyncio.Semaphore] = []
        try:
            async with asyncio.timeout(_DECODE_S):
                for place in places:
                    await place.acquire()
                    held.append(place)
        except TimeoutError:
            _release(held)
            return None
        except asyncio.CancelledError:
            _release(held)
            raise
        work = asyncio.get_running_loop().run_in_executor(None, function)
        # A thread cannot be stopped: its place is free again when it has really ended.
        work.add_done_callback(lambda ended: _ended(ended, held))
        done, _ = await asyncio.wait({work}, timeout=_DECODE_S)
        return work.result() if done and work.exception() is None else None


def _release(places: list[asyncio.Semaphore]) -> None:
    for place in places:
        place.release()


def _ended(work: "asyncio.Future[T]", places: list[asyncio.Semaphore]) -> None:
    _release(places)
    # Pillow raises errors of all kinds for hostile bytes.
    if not work.cancelled() and (error := work.exception()) is not None:
        log.debug("photo.undecodable", error=repr(error))
