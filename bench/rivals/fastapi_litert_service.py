"""FastAPI with the network in LiteRT in its process: one interpreter for each processor."""

import os
import queue
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, Request

from bench.rivals.litert_network import LiteRTNetwork

app = FastAPI()
_FREE: queue.SimpleQueue[LiteRTNetwork] = queue.SimpleQueue()
for _ in range(len(os.sched_getaffinity(0))):
    _FREE.put(LiteRTNetwork(Path(os.environ["MODEL"]), threads=1))


async def _body(request: Request) -> bytes:
    return await request.body()


@app.post("/predict")
def predict(photo: Annotated[bytes, Depends(_body)]) -> dict[str, list[float]]:
    """Classify the photo in the body; FastAPI runs this in a thread."""
    network = _FREE.get()  # an interpreter is not thread-safe
    try:
        return {"probabilities": network.probabilities(network.pixels(photo))}
    finally:
        _FREE.put(network)
