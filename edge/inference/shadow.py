"""Photos that were answered, classified once more by the other version of a trial. Nobody waits for that."""

import asyncio
import time
from collections.abc import Callable

import structlog

from bus.metrics import Counters
from edge.inference.classifier import ClassNames
from edge.serving.client import BadInputError, ModelMissingError, Predictor
from edge.serving.prediction import Prediction, to_predictions
from edge.serving.traffic_router import TrafficRouter
from schemas.errors import TransientError

log = structlog.get_logger()

_WAITING = 16
_PAUSE_S = 1.0


class Shadow:
    """Compares the versions of a trial, one photo at a time.

    Bounded: 16 photos wait, further ones are not compared and counted as `trial.not_compared`. While photos
    wait for their answers it takes one a second, so that it does not slow them.

    Args:
        predictor: The model server.
        trial: Says which version to ask, and counts.
        class_names: The classes of a version, None if unknown.
        counters: Where photos are counted that were not compared.
        busy: Tells whether photos wait for their answers.
    """

    def __init__(
        self,
        predictor: Predictor,
        trial: TrafficRouter,
        class_names: ClassNames,
        counters: Counters,
        busy: Callable[[], bool],
    ) -> None:
        self._predictor = predictor
        self._trial = trial
        self._class_names = class_names
        self._counters = counters
        self._busy = busy
        self._photos: asyncio.Queue[tuple[bytes, Prediction]] = asyncio.Queue(_WAITING)

    def offer(self, image: bytes, said: Prediction) -> None:
        """Have a photo compared that was answered just now, if there is a trial and room."""
        if self._trial.counterpart(said.version) is None:
            return
        if self._photos.full():
            self._counters.add("trial.not_compared")
        else:
            self._photos.put_nowait((image, said))

    async def run(self) -> None:
        """Compare until cancelled. Safe to cancel."""
        while True:
            image, said = await self._photos.get()
            version = self._trial.counterpart(said.version)
            if version is not None:
                await self._compare(image, said, version)
            if self._busy():
                await asyncio.sleep(_PAUSE_S)

    async def _compare(self, image: bytes, said: Prediction, version: int) -> None:
        began = time.monotonic()
        try:
            timeout_s = self._trial.challenger_timeout_s(1)
            predictions = await self._predictor.predict([image], version, timeout_s=timeout_s)
            took_s = time.monotonic() - began
            again = to_predictions(said.model, predictions, self._class_names(version))[0]
        except ModelMissingError:
            self._trial.mark_missing(version)
        except (TransientError, BadInputError) as error:
            log.warning("trial.failed", version=version, error=str(error))
            self._trial.record_failure(version)
        else:
            self._trial.record_success(
                version, 1, took_s if version == self._trial.split.challenger else None
            )
            self._trial.record_comparison(agreed=again.label == said.label)
