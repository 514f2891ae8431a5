"""Route a batch to the stable or the challenger version; fall back, and bisect on bad input."""

import time
from collections.abc import Callable, Iterable

import structlog

from bus.metrics import Counters
from bus.observability.tracing import shared_step
from edge.inference.device_groups import DeviceGroups
from edge.inference.validation import Rejected
from edge.scheduling.in_flight import InFlightPhoto
from edge.serving.client import (
    KNOWN_GOOD,
    BadInputError,
    BatchOutput,
    ModelMissingError,
    ModelOutputError,
    Predictor,
)
from edge.serving.prediction import HeadOf, Prediction, by_groups, to_predictions
from edge.serving.traffic_router import TrafficRouter
from schemas.errors import TransientError

log = structlog.get_logger()

ClassNames = Callable[[int], "tuple[str, ...] | None"]
Temperature = Callable[[int], float | None]
Classified = tuple[InFlightPhoto, Prediction | Rejected]

_CHECK_S = 3.0
_RPC = {
    "rpc.system": "grpc",
    "rpc.service": "tensorflow.serving.PredictionService",
    "rpc.method": "Predict",
}


class Classifier:
    """Classify photos by the version in service or, for some devices, by the challenger.

    Args:
        predictor: The model server.
        router: Chooses the version, and counts calls and failures.
        class_names: The classes of a model version in the order of its outputs, None if unknown.
        temperature: That divides the logits in a model version, None if unknown.
        counters: For calls and photos.
        groups: Find the group of a device.
        head_of: Finds the head of a group.
    """

    def __init__(
        self,
        predictor: Predictor,
        router: TrafficRouter,
        class_names: ClassNames,
        temperature: Temperature,
        counters: Counters,
        *,
        groups: DeviceGroups,
        head_of: HeadOf,
    ) -> None:
        self._predictor = predictor
        self._router = router
        self._class_names = class_names
        self._temperature = temperature
        self._counters = counters
        self._groups = groups
        self._head_of = head_of

    def split_by_version(self, batch: list[InFlightPhoto]) -> Iterable[list[InFlightPhoto]]:
        """Split a batch by the version that should classify each photo."""
        parts: dict[int | None, list[InFlightPhoto]] = {}
        for entry in batch:
            parts.setdefault(self._router.challenger_for(entry.photo.device), []).append(entry)
        return parts.values()

    async def classify(self, part: list[InFlightPhoto]) -> list[Classified]:
        """Classify photos of one version; where the challenger fails, the stable one answers. Safe to cancel.

        Raises:
            TransientError: Try again later.
        """
        # The batch was split before the first attempt, and the routing may have changed since then.
        challenger, *others = {self._router.challenger_for(entry.photo.device) for entry in part}
        if challenger is None or others:  # the devices no longer agree: the stable version may answer all
            return await self._classify_stable(part)
        try:
            timeout_s = self._router.challenger_timeout_s(len(part))
            return list[Classified](self._interpret(part, await self._call(part, challenger, timeout_s)))
        except ModelMissingError:
            self._router.mark_missing(challenger)
            return await self._bisect(part)
        except (TransientError, BadInputError) as error:
            classified = await self._bisect(part)
            # If the stable version rejects a photo as well, the photo may have caused the failure.
            if not any(isinstance(verdict, Rejected) for _, verdict in classified):
                log.warning("predict.failed", version=challenger, error=str(error))
                self._router.record_failure(challenger)
            return classified

    async def classify_alone(self, entry: InFlightPhoto) -> Prediction | Rejected:
        """Classify one photo by the stable version. Safe to cancel.

        Raises:
            UnfinishedError: The deadline passed.
            TransientError: The server or the model failed.
        """
        # A slow call counts neither as a failure of the version nor in its latency: the photo is suspected
        # already. That the model refuses a known-good image too does count.
        began = time.monotonic()
        try:
            output = await self._predictor.predict(
                [entry.photo.image], self._router.split.pinned, timeout_s=self._router.call_timeout_s(1)
            )
        except BadInputError:
            try:
                return (await self._find_fault(entry))[1]
            except ModelOutputError:
                self._router.record_serving_failure()
                raise
        except TransientError as error:
            self._trace([entry], began, self._router.split.pinned, error)
            raise
        self._trace([entry], began, output.version)
        return self.interpret(entry, output)

    def interpret(self, entry: InFlightPhoto, output: BatchOutput) -> Prediction:
        """Return the prediction for a photo from the output of a call with it alone.

        Raises:
            ModelOutputError: The output has the wrong form.
        """
        return self._interpret([entry], output)[0][1]

    async def check_server(self) -> None:
        """Return if the model server answers a known-good image. Safe to cancel.

        Raises:
            TransientError: It does not.
        """
        try:
            await self._predictor.smoke_test(self._router.split.pinned, timeout_s=_CHECK_S)
        except ModelOutputError:  # the version's failure, and not that of a photo
            self._router.record_serving_failure()
            raise

    async def check_repeatedly(self, times: int) -> None:
        """Return if the model server classifies a known-good image several times in a row. Safe to cancel.

        Raises:
            TransientError: It does not.
        """
        await self.check_server()
        for _ in range(times - 1):
            await self._predictor.predict([KNOWN_GOOD], self._router.split.pinned, timeout_s=_CHECK_S)

    async def works(self) -> bool:
        """Return True if `check_server` passes. Safe to cancel."""
        try:
            await self.check_server()
        except TransientError:
            return False
        return True

    async def _classify_stable(self, part: list[InFlightPhoto]) -> list[Classified]:
        try:
            return await self._bisect(part)
        except ModelMissingError:  # the server is away: not a failure of the version
            raise
        except TransientError:
            self._router.record_serving_failure()
            raise

    async def _bisect(self, batch: list[InFlightPhoto]) -> list[Classified]:
        """Classify photos in one call; if it is refused, halve the batch until the bad photo is alone."""
        try:
            output = await self._call_stable(batch)
        except BadInputError:
            if len(batch) == 1:
                return [await self._find_fault(batch[0])]
            middle = len(batch) // 2
            return [*await self._bisect(batch[:middle]), *await self._bisect(batch[middle:])]
        return list[Classified](self._interpret(batch, output))

    async def _call_stable(self, batch: list[InFlightPhoto]) -> BatchOutput:
        while True:
            version = self._router.split.pinned
            try:
                output = await self._call(batch, version)
            except ModelMissingError:
                if version == self._router.split.pinned:
                    raise
                continue  # another version was activated during the call
            # A call for the newest version that overlaps the start of a canary may be answered by the
            # challenger, also for a device that is not in its share: ask again, now for the pinned version.
            if output.version == version or output.version != self._router.split.challenger:
                return output

    async def _call(
        self, batch: list[InFlightPhoto], version: int | None, timeout_s: float | None = None
    ) -> BatchOutput:
        began = time.monotonic()
        if timeout_s is None:
            timeout_s = self._router.call_timeout_s(len(batch))
        images = [entry.photo.image for entry in batch]
        try:
            output = await self._predictor.predict(images, version, timeout_s=timeout_s)
        except TransientError as error:
            self._counters.add("predict.failed")
            self._trace(batch, began, version, error)
            raise
        except BadInputError as error:
            self._trace(batch, began, version, error)
            raise
        self._router.record_success(output.version, len(batch), time.monotonic() - began)
        self._trace(batch, began, output.version)
        return output

    def _trace(
        self,
        batch: list[InFlightPhoto],
        began: float,
        version: int | None,
        error: Exception | None = None,
    ) -> None:
        """Record a call to the model server in the trace of each photo, if traces are on."""
        if batch[0].span is not None:
            shared_step(
                [entry.span for entry in batch],
                "predict",
                "client",
                since=began,
                error=error,
                model=self._predictor.model,
                model_version=version,
                **_RPC,
            )

    async def _find_fault(self, entry: InFlightPhoto) -> Classified:
        """Use a known-good image to decide whether a refused photo or the model is at fault.

        Raises:
            TransientError: Try again later: the model refused the known-good image, or is gone.
        """
        good = await self._predictor.smoke_test(self._router.split.pinned)
        try:
            # Pinned to the version that took the known-good image: another one may be served by now.
            output = await self._predictor.predict([entry.photo.image], good.version)
        except BadInputError as error:
            return entry, Rejected(entry.photo, "corrupt-image", str(error))
        return self._interpret([entry], output)[0]

    def _interpret(
        self, batch: list[InFlightPhoto], output: BatchOutput
    ) -> list[tuple[InFlightPhoto, Prediction]]:
        self._counters.add("predict.calls")
        self._counters.add("predict.photos", len(batch))
        names = self._class_names(output.version)
        temperature = self._temperature(output.version)
        predictions = to_predictions(self._predictor.model, output, names, temperature)
        if self._groups:
            groups = [self._groups.of(entry.photo.device) for entry in batch]
            predictions = by_groups(predictions, output, groups, self._head_of)
        return list(zip(batch, predictions, strict=True))
