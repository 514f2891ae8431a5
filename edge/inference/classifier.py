"""The model server asked about a batch: by which version, and what if it cannot answer."""

import time
from collections.abc import Callable, Iterable

import structlog

from bus.metrics import Counters
from edge.inference.fair_queue import InFlightPhoto
from edge.inference.validation import Rejected
from edge.serving.client import BadInputError, BatchOutput, ModelMissingError, Predictor
from edge.serving.prediction import Prediction, to_predictions
from edge.serving.traffic_router import TrafficRouter
from schemas.errors import TransientError

log = structlog.get_logger()

ClassNames = Callable[[int], "tuple[str, ...] | None"]
Temperature = Callable[[int], float | None]
Verdict = Prediction | Rejected


class Classifier:
    """Classifies photos by the version in service or, for some devices, by the one on trial.

    Args:
        predictor: The model server.
        trial: Says which version answers, and counts what they do.
        class_names: The classes of a model version in the order of its outputs, None if unknown.
        temperature: That divides the logits in a model version, None if unknown.
        counters: Where calls and photos are counted.
    """

    def __init__(
        self,
        predictor: Predictor,
        trial: TrafficRouter,
        class_names: ClassNames,
        temperature: Temperature,
        counters: Counters,
    ) -> None:
        self._predictor = predictor
        self._trial = trial
        self._class_names = class_names
        self._temperature = temperature
        self._counters = counters

    def parts(self, batch: list[InFlightPhoto]) -> Iterable[list[InFlightPhoto]]:
        """Divide a batch by the version that is to answer."""
        parts: dict[int | None, list[InFlightPhoto]] = {}
        for work in batch:
            parts.setdefault(self._trial.challenger_for(work.photo.device), []).append(work)
        return parts.values()

    async def verdicts(self, part: list[InFlightPhoto]) -> list[tuple[InFlightPhoto, Verdict]]:
        """Classify a part of a batch; what the challenger fails, the champion does at once. Safe to cancel.

        Raises:
            TransientError: Try again later.
        """
        # It was divided before the first attempt; the trial may have changed since.
        challenger, *others = {self._trial.challenger_for(work.photo.device) for work in part}
        if challenger is None or others:
            return await self._served(part)
        try:
            timeout_s = self._trial.challenger_timeout_s(len(part))
            return self._scored(part, await self._call(part, challenger, timeout_s))
        except ModelMissingError:
            self._trial.mark_missing(challenger)
            return await self._classified(part)
        except (TransientError, BadInputError) as error:
            verdicts = await self._classified(part)
            if not any(isinstance(verdict, Rejected) for _, verdict in verdicts):
                log.warning("trial.failed", version=challenger, error=str(error))
                self._trial.record_failure(challenger)
            return verdicts

    async def _served(self, part: list[InFlightPhoto]) -> list[tuple[InFlightPhoto, Verdict]]:
        """Classify a part by the version in service, and count what it fails."""
        try:
            return await self._classified(part)
        except ModelMissingError:  # it is not there: no failure of the version
            raise
        except TransientError:
            self._trial.record_serving_failure()
            raise

    async def _classified(self, batch: list[InFlightPhoto]) -> list[tuple[InFlightPhoto, Verdict]]:
        """Classify photos in one call; if the server refuses it, halve it until the bad photo is alone."""
        try:
            predictions = await self._in_service(batch)
        except BadInputError:
            if len(batch) == 1:
                return [await self._blame(batch[0])]
            middle = len(batch) // 2
            return [*await self._classified(batch[:middle]), *await self._classified(batch[middle:])]
        return self._scored(batch, predictions)

    async def _in_service(self, batch: list[InFlightPhoto]) -> BatchOutput:
        """Ask the version in service, which may change while it is asked."""
        while True:
            version = self._trial.split.pinned
            try:
                predictions = await self._call(batch, version)
            except ModelMissingError:
                if version == self._trial.split.pinned:
                    raise
                continue
            # Who asked for the newest just when a trial began may have asked the version on trial.
            if predictions.version == version or predictions.version != self._trial.split.challenger:
                return predictions

    async def _call(
        self, batch: list[InFlightPhoto], version: int | None, timeout_s: float | None = None
    ) -> BatchOutput:
        began = time.monotonic()
        images = [work.photo.image for work in batch]
        predictions = await self._predictor.predict(images, version, timeout_s=timeout_s)
        self._trial.record_success(predictions.version, len(batch), time.monotonic() - began)
        return predictions

    async def _blame(self, work: InFlightPhoto) -> tuple[InFlightPhoto, Verdict]:
        """Find out whether a refused photo is to blame, or the model: another may be served by now.

        Raises:
            TransientError: Try again later: the model is to blame, or no longer there.
        """
        good = await self._predictor.smoke_test(self._trial.split.pinned)
        try:
            predictions = await self._predictor.predict([work.photo.image], good.version)
        except BadInputError as error:
            return work, Rejected(work.photo, "corrupt-image", str(error))
        return self._scored([work], predictions)[0]

    def _scored(
        self, batch: list[InFlightPhoto], predictions: BatchOutput
    ) -> list[tuple[InFlightPhoto, Verdict]]:
        self._counters.add("predict.calls")
        self._counters.add("predict.photos", len(batch))
        names = self._class_names(predictions.version)
        temperature = self._temperature(predictions.version)
        said = to_predictions(self._predictor.model, predictions, names, temperature)
        return list(zip(batch, said, strict=True))
