"""What becomes of the samples that arrive: plain functions of their bytes, without the bus or the dataset."""

from collections.abc import Iterable

from bus.mqtt.presence import now_ms
from bus.mqtt.subscription import Delivery
from cloud.dataset.image_check import check_image
from cloud.dataset.quarantine import Refused
from cloud.dataset.schema import Row
from schemas.errors import CodecError, PermanentError
from schemas.messages import Sample

# The edge shrinks the short side to 320 pixels: this leaves room for a panorama of 39 : 1.
MAX_PIXELS = 4_000_000


def sort(deliveries: Iterable[Delivery[Sample]]) -> tuple[dict[str, Row], list[Refused]]:
    """Part what can be stored, by photo id, from what never can.

    Decodes every image: call it in a thread.
    """
    rows: dict[str, Row] = {}
    refused: list[Refused] = []
    for delivery in deliveries:
        photo_id = None
        try:
            sample = delivery.message()
            photo_id = sample.photo_id
            check_image(sample.image, MAX_PIXELS)
            rows[photo_id] = row_of(sample)
        except PermanentError as error:
            refused.append(
                Refused(
                    photo_id=error.photo_id if isinstance(error, CodecError) else photo_id,
                    node=delivery.names["node"],
                    reason=str(error),
                    received_at_ms=now_ms(),
                    payload=delivery.payload,
                )
            )
    return rows, refused


def row_of(sample: Sample) -> Row:
    """Return a sample as the dataset keeps it.

    Raises:
        PermanentError: A field is out of the dataset's range.
    """
    return Row(
        photo_id=sample.photo_id,
        image=sample.image,
        width=sample.width,
        height=sample.height,
        received_at_ms=now_ms(),
        node=sample.node,
        device=sample.device,
        taken_at_ms=sample.taken_at_ms,
        dhash=sample.dhash,
        lane=sample.lane,
        edge_label=sample.label,
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
    )
