"""Build the results that an edge publishes: plain functions."""

import time

from bus.mqtt.presence import now_ms
from edge.inference.validation import Rejected
from edge.serving.prediction import Prediction
from schemas.field_types import MAX_TEXT_CHARS
from schemas.messages import Photo, Result

_SHORT_REASON_CHARS = 60


def ok(
    photo: Photo,
    prediction: Prediction,
    harvest: str,
    arrived_at: float,
    *,
    damaged: str | None = None,
    confirmed: bool | None = None,
) -> Result:
    """Return the final result of a classified photo.

    Args:
        photo: The photo.
        prediction: By the model.
        harvest: Its lane, or why it was not harvested.
        arrived_at: Seconds of the monotonic clock.
        damaged: Why some of its pixels are missing or wrong.
        confirmed: Whether enough of the device's latest answers agree with it, None without a vote.
    """
    return Result(
        photo_id=photo.photo_id,
        node=photo.node,
        device=photo.device,
        status="ok",
        label=prediction.label,
        confidence=round(prediction.confidence, 6),
        scores={name: round(score, 6) for name, score in prediction.scores.items()},
        raw_confidence=_rounded(prediction.raw_confidence),
        margin=_rounded(prediction.margin),
        entropy=_rounded(prediction.entropy),
        novelty=_rounded(prediction.novelty),
        confirmed=confirmed,
        model=prediction.model,
        model_version=prediction.version,
        group=prediction.group,
        variant=prediction.variant,
        harvest=harvest,
        damaged=None if damaged is None else damaged[:MAX_TEXT_CHARS],
        taken_at_ms=photo.taken_at_ms,
        answered_at_ms=now_ms(),
        edge_ms=_since_ms(arrived_at),
        historical=photo.historical,
    )


def shortened(result: Result) -> Result:
    """Return a result without all that its receiver can do without, for a broker that accepts only little."""
    return Result(
        photo_id=result.photo_id,
        node=result.node,
        device=result.device,
        status=result.status,
        label=result.label,
        confidence=result.confidence,
        confirmed=result.confirmed,
        model=result.model,
        model_version=result.model_version,
        code=result.code,
        reason=result.reason and result.reason[:_SHORT_REASON_CHARS],
        answered_at_ms=result.answered_at_ms,
    )


def rejected(rejection: Rejected, arrived_at: float) -> Result:
    """Return the final result of a photo that is not classified."""
    photo = rejection.photo
    return Result(
        photo_id=photo.photo_id,
        node=photo.node,
        device=photo.device,
        status="rejected",
        code=rejection.code,
        reason=rejection.reason[:MAX_TEXT_CHARS],
        taken_at_ms=photo.taken_at_ms,
        answered_at_ms=now_ms(),
        edge_ms=_since_ms(arrived_at),
        historical=photo.historical,
    )


def deferred(photo: Photo, reason: str, arrived_at: float, retry_after_s: float | None = None) -> Result:
    """Return a result with the reason for the delay; the sender keeps the photo until the final one.

    Args:
        photo: The photo.
        reason: For people.
        arrived_at: Seconds of the monotonic clock.
        retry_after_s: When to send it again, in seconds, if it is not kept here.
    """
    return Result(
        photo_id=photo.photo_id,
        node=photo.node,
        device=photo.device,
        status="deferred",
        reason=reason[:MAX_TEXT_CHARS],
        retry_after_s=retry_after_s,
        taken_at_ms=photo.taken_at_ms,
        answered_at_ms=now_ms(),
        edge_ms=_since_ms(arrived_at),
        historical=photo.historical,
        trace=photo.trace,
    )


def _rounded(value: float | None) -> float | None:
    # People read results with mosquitto_sub, and the digits of a float32 beyond the sixth are noise.
    return None if value is None else round(value, 6)


def _since_ms(moment: float) -> float:
    return round((time.monotonic() - moment) * 1000, 2)
