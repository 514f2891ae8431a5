"""The person of a run: looks at the least certain harvested photos and answers through the feedback topic."""

import asyncio
from collections.abc import Mapping, Sequence

from bus.mqtt.client import Bus
from bus.mqtt.presence import now_ms
from bus.mqtt.subscription import Subscription
from cloud.labeling.review_queue import ReviewItem
from demo.screen import Screen
from demo.services import NODE
from schemas.errors import PermanentError
from schemas.messages import Event, Feedback
from schemas.topics import FEEDBACK

NAME = "reviewer"
_ANSWER_S = 60.0


async def review(
    reviews: Sequence[ReviewItem],
    truths: Mapping[str, str],
    *,
    bus: Bus,
    events: Subscription[Event],
    screen: Screen,
) -> None:
    """Say what each photo shows, and wait until all of it is in the dataset.

    Args:
        reviews: Photos to look at.
        truths: What they show, by photo id.
        bus: Connected by its own `run`.
        events: Events of the cloud, subscribed to before.
        screen: Shows how far it is.

    Raises:
        PermanentError: A label is not stored within a minute.
    """
    waiting = {review.photo_id for review in reviews}
    with screen.busy("labels") as tell:
        try:
            async with asyncio.timeout(_ANSWER_S):
                await bus.connected()
                for review in reviews:
                    await _say(review, truths[review.photo_id], bus)
                while waiting:
                    event = (await events.queue.get()).message()
                    if event.event == "feedback.recorded":
                        waiting.discard(str(event.facts.get("photo_id")))
                        tell(f"{len(reviews) - len(waiting)} of {len(reviews)} labels are stored")
        except TimeoutError:
            got = f"{len(waiting)} that are not after {_ANSWER_S:g} s"
            raise PermanentError("labels", expected="to be stored", got=got) from None


async def _say(review: ReviewItem, label: str, bus: Bus) -> None:
    device = review.device or "pi-1"
    feedback = Feedback(
        photo_id=review.photo_id, node=NODE, device=device, label=label, by=NAME, at_ms=now_ms()
    )
    await bus.publish(FEEDBACK, feedback, node=NODE, device=device)
