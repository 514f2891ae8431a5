"""The answers that an edge gives: plain functions that build a Result."""

import time

from bus.mqtt.presence import now_ms
from edge.inference.validation import Rejected
from edge.serving.prediction import Prediction
from schemas.messages import Photo, Result

_REASON_LENGTH = 1024


def ok(photo: Photo, said: Prediction, harvest: str, arrived_at: float) -> Result:
    """Return the answer to a classified photo.

    Args:
        photo: The photo.
        said: By the model.
        harvest: Its lane, or why it was not harvested.
        arrived_at: Seconds of the monotonic clock.
    """
    return Result(
        photo_id=photo.photo_id,
        node=photo.node,
        device=photo.device,
        status="ok",
        label=said.label,
        confidence=round(said.confidence, 6),
        scores={name: round(score, 6) for name, score in said.scores.items()},
        raw_confidence=_rounded(said.raw_confidence),
        margin=_rounded(said.margin),
        entropy=_rounded(said.entropy),
        novelty=_rounded(said.novelty),
        model=said.model,
        model_version=said.version,
        harvest=harvest,
        taken_at_ms=photo.taken_at_ms,
        answered_at_ms=now_ms(),
        edge_ms=_since_ms(arrived_at),
        historical=photo.historical,
    )


def rejected(rejection: Rejected, arrived_at: float) -> Result:
    """Return the answer to a photo that is not classified."""
    photo = rejection.photo
    return Result(
        photo_id=photo.photo_id,
        node=photo.node,
        device=photo.device,
        status="rejected",
        code=rejection.code,
        reason=rejection.reason[:_REASON_LENGTH],
        taken_at_ms=photo.taken_at_ms,
        answered_at_ms=now_ms(),
        edge_ms=_since_ms(arrived_at),
        historical=photo.historical,
    )


def deferred(photo: Photo, reason: str, arrived_at: float) -> Result:
    """Return the word that the answer takes longer, and why; the sender keeps the photo until then."""
    return Result(
        photo_id=photo.photo_id,
        node=photo.node,
        device=photo.device,
        status="deferred",
        reason=reason[:_REASON_LENGTH],
        taken_at_ms=photo.taken_at_ms,
        answered_at_ms=now_ms(),
        edge_ms=_since_ms(arrived_at),
        historical=photo.historical,
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _since_ms(moment: float) -> float:
    return round((time.monotonic() - moment) * 1000, 2)
