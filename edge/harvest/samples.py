"""Make the message of a sample, and hold it until its transaction is committed."""

import sqlite3
from typing import NamedTuple

from bus.mqtt.presence import now_ms
from bus.outbox.outbox import Item, Outbox
from edge.harvest import history
from edge.harvest.history import HarvestedSample
from edge.harvest.shrinking import unshrunk
from edge.harvest.shrinking.image import Shrunk
from edge.serving.prediction import Prediction
from schemas.messages import Photo, Sample


class AdmittedSample(NamedTuple):
    """A sample that has room in the outbox and is not on the disk yet.

    Args:
        item: Its message.
        sample: For the history.
        original: The message's content, if it is to be shrunk after the photo is answered.
    """

    item: Item
    sample: HarvestedSample
    original: Sample | None = None

    def write(self, connection: sqlite3.Connection) -> None:
        """Write the sample and its row in the history in the transaction of the connection."""
        Outbox.write(connection, self.item)
        history.write(connection, self.sample, now_ms(), history.boot_id())
        if self.original is not None:
            unshrunk.mark(connection, self.original.photo_id)


def make_sample(
    photo: Photo,
    shrunk: Shrunk,
    dhash: int,
    prediction: Prediction,
    *,
    lane: str,
    inclusion: float | None = None,
) -> Sample:
    """Return the sample of a photo.

    Args:
        photo: The photo.
        shrunk: Its image in the sample.
        dhash: Its difference hash.
        prediction: By the model.
        lane: That it is harvested in.
        inclusion: Probability of its draw, for an audit.
    """
    return Sample(
        photo_id=photo.photo_id,
        node=photo.node,
        device=photo.device,
        image=shrunk.image,
        width=shrunk.width,
        height=shrunk.height,
        dhash=f"{dhash:016x}",
        lane=lane,
        label=prediction.label,
        confidence=prediction.confidence,
        scores=prediction.scores,
        raw_confidence=prediction.raw_confidence,
        margin=prediction.margin,
        entropy=prediction.entropy,
        novelty=prediction.novelty,
        inclusion=inclusion,
        model=prediction.model,
        model_version=prediction.version,
        group=prediction.group,
        variant=prediction.variant,
        embedding=prediction.embedding,
        taken_at_ms=photo.taken_at_ms,
        harvested_at_ms=now_ms(),
        trace=photo.trace,
    )
