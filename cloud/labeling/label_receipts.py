"""Wait until a collector confirms a label; one that is only at the broker can still be lost."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from bus.mqtt.client import Bus
from schemas.errors import CodecError
from schemas.events import EventName
from schemas.messages import Feedback
from schemas.topics import CLOUD, EVENT

MEANINGS = {
    "stored": "recorded",
    "waiting": "recorded; its photo has not arrived",
    "superseded": "superseded: a later label is stored; 'gleaner cloud relabel' replaces it",
    "forgotten": "not recorded: this photo was forgotten",
    "refused": "refused: another camera took this photo",
}
"""What the outcomes of `cloud.dataset.store.Store.label` mean to the person who gave the label."""
RECORDED = ("stored", "waiting")


class LabelReceipts:
    """The collectors' answers to labels, by label; those of everybody are kept until the end.

    Args:
        bus: Not connected yet.
    """

    def __init__(self, bus: Bus) -> None:
        self._events = bus.subscribe(EVENT, node=CLOUD)
        self._outcomes: dict[tuple[str, str, str], str] = {}
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Read the answers for the length of a block."""
        async with asyncio.TaskGroup() as tasks:
            # All the time: events that nobody takes would fill the connection's queue.
            reader = tasks.create_task(self._read(), name="labels.receipts")
            yield
            reader.cancel()

    async def outcomes(self, labels: Iterable[Feedback], timeout_s: float) -> list[str | None]:
        """Return the outcome of each label, in their order; None where no collector answered in time.

        Safe to cancel.
        """
        wanted = [(label.photo_id, label.label, label.by) for label in labels]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not all(key in self._outcomes for key in wanted):
                    self._changed.clear()
                    await self._changed.wait()
        return [self._outcomes.get(key) for key in wanted]

    async def _read(self) -> None:
        async for delivery in self._events:
            delivery.ack()
            try:
                event = delivery.message()
            except CodecError:
                continue
            if event.event != EventName.FEEDBACK_RECORDED:
                continue
            photo_id, label, by = (str(event.facts.get(name)) for name in ("photo_id", "label", "by"))
            # Every collector stores every label: the first one does, and to the others it is superseded.
            if self._outcomes.get((photo_id, label, by)) not in RECORDED:
                self._outcomes[photo_id, label, by] = str(event.facts.get("outcome"))
            self._changed.set()
