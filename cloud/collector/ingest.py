"""Validate the samples that arrive, and convert them to rows of the dataset."""

from collections.abc import Iterable
from typing import NamedTuple

from bus.mqtt.presence import now_ms
from bus.mqtt.subscription import Delivery
from cloud.dataset.dead_letters import DeadLetter
from cloud.dataset.image_check import CheckedImage, check_whole
from cloud.dataset.schema import Row
from schemas.class_names import class_name
from schemas.errors import CodecError, PermanentError
from schemas.image import MAX_SAMPLE_PIXELS, ImageLimits
from schemas.messages import Sample

MAX_PIXELS = MAX_SAMPLE_PIXELS


class Origin(NamedTuple):
    """Where a sample comes from.

    Args:
        trace: Field of the sample.
        arrived_at: When it arrived, in seconds of the monotonic clock.
        harvested_ms: Field of the sample.
    """

    trace: str | None
    arrived_at: float
    harvested_ms: int


class Validated(NamedTuple):
    """Samples that were decoded and checked.

    Args:
        rows: By photo id.
        dead_letters: Messages that can never be stored.
        origins: Of the samples that could be decoded, by photo id.
    """

    rows: dict[str, Row]
    dead_letters: list[DeadLetter]
    origins: dict[str, Origin]


def validate_samples(deliveries: Iterable[Delivery[Sample]]) -> Validated:
    """Decode and check samples, images included; call it in a thread."""
    rows: dict[str, Row] = {}
    dead_letters: list[DeadLetter] = []
    origins: dict[str, Origin] = {}
    for delivery in deliveries:
        photo_id = None
        try:
            sample = delivery.message()
            photo_id = sample.photo_id
            origins[photo_id] = Origin(sample.trace, delivery.arrived_at, sample.harvested_at_ms)
            checked = check_whole(sample.image, ImageLimits.for_pixels(MAX_PIXELS))
            rows[photo_id] = row_of(sample, checked)
        except PermanentError as error:
            dead_letters.append(
                DeadLetter(
                    # A message that does not decode may still have a readable id, to send a receipt for.
                    photo_id=error.photo_id if isinstance(error, CodecError) else photo_id,
                    node=delivery.names["node"],
                    reason=str(error),
                    received_at_ms=now_ms(),
                    payload=delivery.payload,
                )
            )
    return Validated(rows, dead_letters, origins)


def row_of(sample: Sample, checked: CheckedImage) -> Row:
    """Return a sample as a row of the dataset, with its checked image, whose size counts.

    Raises:
        PermanentError: A field is out of the dataset's range.
    """
    return Row(
        photo_id=sample.photo_id,
        image=checked.image,
        width=checked.facts.width,
        height=checked.facts.height,
        received_at_ms=now_ms(),
        node=sample.node,
        device=sample.device,
        taken_at_ms=sample.taken_at_ms,
        dhash=sample.dhash,
        lane=sample.lane,
        edge_label=class_name(sample.label),
        confidence=sample.confidence,
        scores=sample.scores,
        raw_confidence=sample.raw_confidence,
        margin=sample.margin,
        entropy=sample.entropy,
        novelty=sample.novelty,
        inclusion=sample.inclusion,
        model=sample.model,
        model_version=sample.model_version,
        embedding=sample.embedding,
        device_group=sample.group,
        model_variant=sample.variant,
    )
