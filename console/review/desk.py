"""The photos to label: in the order of the review queue, each seen by one person at a time."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence

import structlog

from bus.diagnosis.sentence import Sentence
from bus.mqtt.presence import now_ms
from cloud.dataset.store import Store
from cloud.labeling.review_queue import UnlabelledPhoto, feedbacks_for, known_classes, listed_for_review
from console.access.audit_trail import Entry
from console.access.roles import Visitor
from console.review.label_sender import LabelSender
from console.review.leases import Leases
from schemas.class_names import NEITHER
from schemas.errors import GleanerError, PermanentError
from schemas.messages import Feedback

log = structlog.get_logger()

LISTED = 400
"""Photos that are listed at once: enough for several people until the list is made again."""
MAX_LABELLED = 50_000
"""Most labelled photos that this process remembers; the dataset has all."""
MAX_SKIPPED = 1_000
"""Photos per session that are shown after the others; sessions are bounded."""
_MAX_SESSIONS = 1_024
_STALE_S = 30.0
"""An older list, in seconds, is made again if labels or photos arrived since."""
_FEW = 40


class ReviewDesk:
    """Hands out photos and takes labels.

    Args:
        store: The dataset.
        sender: The way of the labels.
        leases: Who sees which photo.
        as_person: Whether labels are addressed as human ones, see `feedback_for`.
    """

    def __init__(self, store: Store, sender: LabelSender, leases: Leases, *, as_person: bool) -> None:
        self.sender = sender
        self._store = store
        self._leases = leases
        self._as_person = as_person
        self._listed: OrderedDict[str, UnlabelledPhoto] = OrderedDict()
        self._labelled: OrderedDict[str, UnlabelledPhoto | None] = OrderedDict()
        self._skipped: OrderedDict[str, OrderedDict[str, None]] = OrderedDict()
        self._classes: list[str] = []
        self._new_classes: OrderedDict[str, None] = OrderedDict()
        self._listed_at: float | None = None
        self._changed = True
        self._wanted, self._made = asyncio.Event(), asyncio.Event()
        self._wanted.set()  # the first list is made at the start: with 100 000 photos it takes seconds
        self._is_making = False
        self._problem: GleanerError | None = None

    async def run(self) -> None:
        """List photos whenever that is wanted, until cancelled; meanwhile the earlier list is handed out."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            self._is_making, self._changed = True, False
            try:
                listed, self._classes = await asyncio.to_thread(self._read)
            except GleanerError as error:
                log.warning("review.not_listed", error=str(error))
                self._problem = error
            else:
                # Labels that were given during the read, or are not yet recorded, are not in its result.
                fresh = ((photo.photo_id, photo) for photo in listed)
                self._listed = OrderedDict(one for one in fresh if one[0] not in self._labelled)
                self._listed_at, self._problem = time.monotonic(), None
            finally:
                self._is_making = False
                made, self._made = self._made, asyncio.Event()
                made.set()

    async def next_photos(
        self, visitor: Visitor, count: int, after: Sequence[str] = ()
    ) -> list[UnlabelledPhoto]:
        """Reserve the next photos for a user and return them, in their order.

        Args:
            visitor: Who asks; another browser of the same person is another one here.
            count: How many.
            after: Photos that the person has already, which stay reserved.

        Raises:
            TransientError: The dataset cannot be read now.
        """
        await self._refresh(visitor, after)
        self._leases.take(after, visitor.session)
        skipped = self._skipped.get(visitor.session, OrderedDict())
        free = [
            photo
            for photo in self._listed.values()
            if photo.photo_id not in after and self._leases.is_free(photo.photo_id, visitor.session)
        ]
        # Skipped photos come after all others.
        ordered = sorted(free, key=lambda photo: photo.photo_id in skipped)[:count]
        self._leases.take([photo.photo_id for photo in ordered], visitor.session)
        return ordered

    def lost(self, visitor: Visitor, photo_ids: Sequence[str]) -> list[str]:
        """Return those of a page's photos that another user sees or that were labelled by now."""
        session = visitor.session
        return [key for key in photo_ids if key in self._labelled or not self._leases.is_free(key, session)]

    def remaining(self, visitor: Visitor) -> int:
        """Return how many listed photos no other user sees; `LISTED` at a time, so there may be more."""
        return sum(self._leases.is_free(photo_id, visitor.session) for photo_id in self._listed)

    def release(self, visitor: Visitor, photo_ids: Sequence[str]) -> None:
        """Release photos that a user no longer sees."""
        self._leases.release(photo_ids, visitor.session)

    def classes(self) -> list[str]:
        """Return the classes that photos have, and those that people made here."""
        return sorted({*self._classes, *self._new_classes} - {NEITHER})

    async def label(self, visitor: Visitor, client: str, photo_ids: Sequence[str], label: str) -> list[str]:
        """Give photos a label; it is on the disk when this returns.

        Args:
            visitor: The person who gives it.
            client: Address that the request came from.
            photo_ids: Of samples.
            label: A class, a new one, or `NEITHER`.

        Returns:
            Ids of the labels, to undo them for a while.

        Raises:
            PermanentError: The label is not a class name, there is no photo, or one is unknown or reserved by
                another user.
            TransientError: The dataset cannot be read or the disk not be written now.
        """
        if not photo_ids:
            raise PermanentError(Sentence("no photo was chosen"), hint=Sentence("choose one, then its label"))
        taken = [photo_id for photo_id in photo_ids if not self._leases.is_free(photo_id, visitor.session)]
        if taken:
            raise PermanentError(
                Sentence("somebody else is labelling %(count)s of these photos", count=len(taken))
            )
        made = await asyncio.to_thread(
            feedbacks_for, self._store, photo_ids, label, visitor.name, as_person=self._as_person
        )
        labels = [one for one in made if isinstance(one, Feedback)]
        if len(labels) != len(made):
            raise PermanentError(
                Sentence("an imported photo is not a sample"), hint=Sentence("use 'gleaner cloud relabel'")
            )
        name = labels[0].label
        facts: dict[str, object] = {"label": name, "photos": list(photo_ids)}
        ids = await self.sender.give(labels, Entry.made(now_ms(), visitor.name, client, "label.given", facts))
        self._put_away(photo_ids)
        self._leases.release(photo_ids, visitor.session)
        self._new_classes[name] = None
        if len(self._new_classes) > MAX_SKIPPED:
            self._new_classes.popitem(last=False)
        return ids

    async def take_back(self, visitor: Visitor, client: str, ids: Sequence[str]) -> list[str]:
        """Take labels back that were not sent yet; return their photos, which this user sees again."""

        def entry_of(labels: Sequence[Feedback]) -> Entry:
            facts: dict[str, object] = {
                "label": ", ".join(sorted({one.label for one in labels})),
                "photos": [one.photo_id for one in labels],
            }
            return Entry.made(now_ms(), visitor.name, client, "label.taken_back", facts)

        photo_ids = await self.sender.take_back(ids, entry_of)
        # Before they are listed again: the page of this user shows them at once.
        self._leases.take(photo_ids, visitor.session)
        for photo_id in photo_ids:
            if (photo := self._labelled.pop(photo_id, None)) is not None:
                self._listed[photo_id] = photo
                self._listed.move_to_end(photo_id, last=False)
        self._changed = True
        return photo_ids

    def skip(self, visitor: Visitor, photo_ids: Sequence[str]) -> None:
        """Show photos after all others to this person, and at once to others."""
        skipped = self._skipped.setdefault(visitor.session, OrderedDict())
        self._skipped.move_to_end(visitor.session)
        for photo_id in photo_ids:
            skipped[photo_id] = None
            if len(skipped) > MAX_SKIPPED:
                skipped.popitem(last=False)
        if len(self._skipped) > _MAX_SESSIONS:
            self._skipped.popitem(last=False)
        self._leases.release(photo_ids, visitor.session)

    def recorded(self, photo_id: str) -> None:
        """Note that a photo was labelled, here or elsewhere."""
        self._put_away([photo_id])
        self._changed = True

    def _put_away(self, photo_ids: Sequence[str]) -> None:
        for photo_id in photo_ids:
            # Kept, to be shown again at once if the label is taken back.
            self._labelled[photo_id] = self._listed.pop(photo_id, None) or self._labelled.get(photo_id)
            if len(self._labelled) > MAX_LABELLED:
                self._labelled.popitem(last=False)

    async def _refresh(self, visitor: Visitor, after: Sequence[str]) -> None:
        """Ask for a new list where this one is short or old; wait for it only if it has no further photo.

        Raises:
            GleanerError: The dataset cannot be read.
        """
        if not self._is_making and not self._is_stale(visitor):
            return
        made = self._made
        if not self._is_making:
            self._wanted.set()
        session = visitor.session
        if not any(key not in after and self._leases.is_free(key, session) for key in self._listed):
            await made.wait()
            if self._problem is not None:
                raise self._problem

    def _read(self) -> tuple[list[UnlabelledPhoto], list[str]]:
        return listed_for_review(self._store, LISTED + len(self.sender)), known_classes(self._store)

    def _is_stale(self, visitor: Visitor) -> bool:
        if self._listed_at is None:
            return True
        age_s = time.monotonic() - self._listed_at
        short = sum(self._leases.is_free(key, visitor.session) for key in self._listed) < _FEW
        return age_s > _STALE_S and (self._changed or short)
