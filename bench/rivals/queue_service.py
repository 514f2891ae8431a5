"""Frigate's way behind HTTP: pixels go through a queue to one detector process, which runs them one by one.

Frigate hands frames over in shared memory and answers by ZeroMQ; here both are queues of multiprocessing. The
detector has a thread for each processor, as Frigate's CPU detector by its setting `num_threads`.
"""

import asyncio
import itertools
import multiprocessing
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request

from bench.rivals.litert_network import LiteRTNetwork

_VERSION = Path(os.environ["MODEL"])
_THREADS = len(os.sched_getaffinity(0))


def _detect(frames: Any, answers: Any) -> None:
    network = LiteRTNetwork(_VERSION, _THREADS)
    while (frame := frames.get()) is not None:
        number, pixels = frame
        answers.put((number, network.probabilities(pixels)))


class Detector:
    """The detector process and the requests that wait for it."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._frames, self._answers = context.Queue(), context.Queue()
        self._process = context.Process(target=_detect, args=(self._frames, self._answers), daemon=True)
        self._decoder = LiteRTNetwork(_VERSION, 1)
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[list[float]]] = {}

    def start(self) -> None:
        """Start the process, and a thread that takes its answers."""
        self._process.start()
        loop = asyncio.get_running_loop()

        def take() -> None:
            while True:
                loop.call_soon_threadsafe(self._answered, *self._answers.get())

        threading.Thread(target=take, daemon=True).start()

    def stop(self) -> None:
        """End the process."""
        self._frames.put(None)

    async def classify(self, photo: bytes) -> list[float]:
        """Decode in a thread, and wait for the detector."""
        pixels = await asyncio.to_thread(self._decoder.pixels, photo)
        number = next(self._numbers)
        self._waiting[number] = answer = asyncio.get_running_loop().create_future()
        self._frames.put((number, pixels))
        return await answer

    def _answered(self, number: int, row: list[float]) -> None:
        self._waiting.pop(number).set_result(row)


_DETECTOR = Detector() if multiprocessing.parent_process() is None else None


@asynccontextmanager
async def _running(_app: FastAPI) -> AsyncIterator[None]:
    assert _DETECTOR is not None
    _DETECTOR.start()
    yield
    _DETECTOR.stop()


app = FastAPI(lifespan=_running)


@app.post("/predict")
async def predict(request: Request) -> dict[str, list[float]]:
    """Classify the photo in the body."""
    assert _DETECTOR is not None
    return {"probabilities": await _DETECTOR.classify(await request.body())}
