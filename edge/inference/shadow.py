"""Classify answered photos again by the other version of a rollout and compare the labels."""

import asyncio
import time
from collections.abc import Callable

import structlog

from bus.metrics import Counters
from edge.inference.classifier import ClassNames
from edge.serving.client import BadInputError, ModelMissingError, Predictor
from edge.serving.prediction import HeadOf, Prediction, by_groups, to_predictions
from edge.serving.traffic_router import TrafficRouter
from schemas.errors import TransientError

log = structlog.get_logger()

_MAX_QUEUED = 16
_PAUSE_S = 1.0


class Shadow:
    """Compare champion and challenger, one photo at a time; no sender waits for it.

    Bounded: beyond 16 queued photos, further ones are not compared and counted as `shadow.dropped`. While
    photos wait for a batch, one a second is compared, so that answers are not slowed down.

    Args:
        predictor: The model server.
        router: Chooses the version, and counts calls and disagreements.
        class_names: The classes of a model version, None if unknown.
        counters: For photos that were not compared.
        head_of: Finds the head of a group.
        busy: Returns True while photos wait for a batch.
    """

    def __init__(
        self,
        predictor: Predictor,
        router: TrafficRouter,
        class_names: ClassNames,
        counters: Counters,
        *,
        head_of: HeadOf,
        busy: Callable[[], bool],
    ) -> None:
        self._predictor = predictor
        self._router = router
        self._class_names = class_names
        self._head_of = head_of
        self._counters = counters
        self._busy = busy
        self._queue: asyncio.Queue[tuple[bytes, Prediction]] = asyncio.Queue(_MAX_QUEUED)

    def offer(self, image: bytes, prediction: Prediction) -> None:
        """Queue an answered photo for comparison, if there is another version and room."""
        if self._router.counterpart(prediction.version) is None:
            return
        if self._queue.full():  # never wait here: the caller is answering a batch
            self._counters.add("shadow.dropped")
        else:
            self._queue.put_nowait((image, prediction))

    async def run(self) -> None:
        """Compare until cancelled. Safe to cancel: queued photos are dropped."""
        while True:
            image, prediction = await self._queue.get()
            # Asked again: the split may have changed while the photo was queued.
            version = self._router.counterpart(prediction.version)
            if version is not None:
                await self._compare(image, prediction, version)
            if self._busy():
                await asyncio.sleep(_PAUSE_S)

    async def _compare(self, image: bytes, prediction: Prediction, version: int) -> None:
        began = time.monotonic()
        try:
            timeout_s = self._router.challenger_timeout_s(1)
            output = await self._predictor.predict([image], version, timeout_s=timeout_s)
            took_s = time.monotonic() - began
            others = to_predictions(prediction.model, output, self._class_names(version))
            other = by_groups(others, output, [prediction.group], self._head_of)[0]
        except ModelMissingError:
            self._router.mark_missing(version)
        except (TransientError, BadInputError) as error:
            log.warning("predict.failed", version=version, error=str(error))
            self._router.record_failure(version)
        else:
            # Single photos are slower per photo than batches: the champion's latency is taken from batches.
            is_challenger = version == self._router.split.challenger
            self._router.record_success(version, 1, took_s if is_challenger else None)
            self._router.record_comparison(agreed=other.label == prediction.label)
