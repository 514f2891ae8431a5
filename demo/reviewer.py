"""A scripted reviewer: labels harvested photos through the feedback topic."""

import asyncio
from collections.abc import Mapping, Sequence

from bus.mqtt.client import Bus
from bus.mqtt.presence import now_ms
from bus.mqtt.subscription import Subscription
from cloud.labeling.review_queue import ReviewItem
from demo.screen import Screen
from demo.services import NODE
from schemas.errors import PermanentError
from schemas.events import EventName
from schemas.messages import Event, Feedback
from schemas.topics import FEEDBACK

NAME = "reviewer"
_STORED_S = 240.0


async def review(
    reviews: Sequence[ReviewItem],
    truths: Mapping[str, str],
    *,
    bus: Bus,
    events: Subscription[Event],
    screen: Screen,
) -> None:
    """Publish a label for each photo, and wait until all labels are in the dataset.

    Args:
        reviews: Photos to label.
        truths: True classes by photo id.
        bus: Connected by its own `run`.
        events: Events of the cloud, subscribed to before the first label is published.
        screen: Shows the progress.

    Raises:
        PermanentError: A label is not stored in time.
    """
    pending = {review.photo_id for review in reviews}
    with screen.progress("labels") as update:
        try:
            async with asyncio.timeout(_STORED_S):
                await bus.connected()
                for review in reviews:
                    await _publish_label(review, truths[review.photo_id], bus)
                while pending:
                    event = (await events.queue.get()).message()
                    # Labels are stored in any order; wait for those of this review only.
                    if event.event == EventName.FEEDBACK_RECORDED:
                        pending.discard(str(event.facts.get("photo_id")))
                        update(f"{len(reviews) - len(pending)} of {len(reviews)} labels are stored")
        except TimeoutError:
            raise PermanentError(
                f"{len(pending)} of {len(reviews)} labels were not stored in {_STORED_S:g} s"
            ) from None


async def _publish_label(review: ReviewItem, label: str, bus: Bus) -> None:
    device = review.device or "pi-1"  # an imported photo has none; any valid topic will do
    feedback = Feedback(
        photo_id=review.photo_id, node=NODE, device=device, label=label, by=NAME, at_ms=now_ms()
    )
    await bus.publish(FEEDBACK, feedback, node=NODE, device=device)
