"""Check the signature of each version that the model server serves, before photos depend on it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import structlog

from bus.mqtt.client import Bus
from edge.serving.call_form import SignatureError, find_form
from edge.serving.client import Predictor
from edge.serving.traffic_router import TrafficRouter
from schemas.errors import TransientError
from schemas.events import EventName

log = structlog.get_logger()

_CHECK_S = 1.0
_NAMELESS_CHECKS = 5
"""Checks after which missing class names are reported: a retained release may bring them until then."""
_PART = "signature"
_NAMELESS = SignatureError(
    "its class names are unknown",
    hint="set `classes` in the configuration of this edge to their names, in the order of its scores",
)


class Publish(Protocol):
    """Publishes an event about the model."""

    def __call__(
        self, event: EventName, *, reason: str | None = None, **facts: str | float
    ) -> Awaitable[None]:
        """Publish it, or drop it without a broker."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check.

    Attributes:
        version: that was checked.
        problem: why it cannot classify photos; None if it can.
    """

    version: int
    problem: str | None


class MetadataCheck:
    """Compares what a served model takes and gives with what this edge sends and reads.

    Args:
        bus: For the Status.
        predictor: The model server; gets the form of its calls.
        router: Knows the version in service.
        class_names: The classes of a version, None if unknown.
        scores: What the model's scores are, None to infer it from the name of its output.
        publish: Publishes events.
    """

    def __init__(
        self,
        bus: Bus,
        predictor: Predictor,
        router: TrafficRouter,
        *,
        class_names: Callable[[int], tuple[str, ...] | None],
        scores: Literal["logits", "probabilities"] | None,
        publish: Publish,
    ) -> None:
        self._bus, self._predictor, self._router = bus, predictor, router
        self._class_names, self._scores, self._publish = class_names, scores, publish

    async def run(self) -> None:
        """Check each version when it comes into service, until cancelled. Safe to cancel."""
        known: Finding | None = None
        nameless = 0
        while True:
            version = self._router.available
            # A version at fault is checked again: its class names may arrive with a release.
            if version is not None and (known is None or known.version != version or known.problem):
                nameless = 0 if self._class_names(version) else nameless + 1
                found = await self._check(version, patient=0 < nameless < _NAMELESS_CHECKS)
                if found is not None and found != known:
                    known = found
                    await self._report(found)
            await asyncio.sleep(_CHECK_S)

    async def _check(self, version: int, *, patient: bool) -> Finding | None:
        """Return what is wrong with a version; None if the server does not report it, or names may follow."""
        names = self._class_names(version)
        try:
            signatures = await self._predictor.signatures(version)
            if signatures is None:
                return None
            form = find_form(signatures, len(names) if names else None, self._scores)
        except SignatureError as error:
            return Finding(version, str(error))
        except TransientError as error:
            log.debug("model.metadata_unknown", version=version, reason=str(error))
            return None
        self._predictor.set_form(version, form)  # also while the names are missing
        if names is None:
            return None if patient else Finding(version, str(_NAMELESS))
        return Finding(version, None)

    async def _report(self, found: Finding) -> None:
        if found.problem is None:
            await self._bus.report_recovered(_PART)
            return
        reason = f"model {self._predictor.model} version {found.version} cannot be used: {found.problem}"
        log.error("model.mismatched", version=found.version, reason=reason)
        await self._bus.report_degraded(_PART, reason)
        await self._publish(EventName.MODEL_MISMATCHED, reason=reason, version=found.version)
