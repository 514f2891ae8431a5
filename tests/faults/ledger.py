"""The reckoning: every photo has one answer, every sample one row. A plain function of what is on disk."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.faults.books import Book, Row
from tests.faults.components import Line

LANES = frozenset({"auto", "hard", "audit"})
BROKEN = "broken"
"""The label of photos whose picture is cut off: they are answered with a rejection."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """What was counted. The guarantees hold where `verdict` is empty."""

    photos: int
    answered: int
    samples: int
    rows: int
    photos_lost: int
    photos_doubled: int
    samples_lost: int
    samples_doubled: int
    rows_nobody_sent: int
    still_waiting: int
    not_harvested: Mapping[str, int]
    wrong: Sequence[str]

    @property
    def verdict(self) -> list[str]:
        """Return what is not as guaranteed, in words."""
        found = [
            (self.photos_lost, f"photos lost ({self.still_waiting} messages still wait in outboxes)"),
            (self.photos_doubled, "photos answered twice"),
            (self.samples_lost, "samples lost"),
            (self.samples_doubled, "samples stored twice"),
            (self.rows_nobody_sent, "rows that nobody sent"),
            (len(self.wrong), "wrong: " + "; ".join(self.wrong[:3])),
            (sum(self.not_harvested.values()), f"not harvested: {dict(self.not_harvested)}"),
        ]
        return [f"{count} {words}" for count, words in found if count]


def reckon(
    devices: Sequence[Book],
    edge: Book,
    stored: Sequence[Row],
    printed: Sequence[Line],
    known: Mapping[bytes, str],
) -> Ledger:
    """Hold what was accepted against what was answered, harvested and stored.

    Args:
        devices: The agents' books.
        edge: The edge's book.
        stored: Rows of the dataset.
        printed: Final answers that the agents printed. One that was killed between recording and printing
            has printed less than it recorded, and never more.
        known: Each photo's bytes and what they show.
    """
    answers = [answer for book in devices for answer in book.answers]
    accepted = sum(book.accepted for book in devices)
    harvested = {answer.photo_id for answer in edge.answers if answer.harvest in LANES}
    copies = Counter(row.photo_id for row in stored)
    shown = Counter(line.photo_id for line in printed)
    return Ledger(
        photos=accepted,
        answered=len(answers),
        samples=len(harvested),
        rows=len(stored),
        photos_lost=accepted - len(answers),
        photos_doubled=shown.total() - len(shown),
        samples_lost=len(harvested - copies.keys()),
        samples_doubled=copies.total() - len(copies),
        rows_nobody_sent=len(copies.keys() - harvested),
        still_waiting=sum(book.waiting for book in (*devices, edge)),
        not_harvested=Counter(
            answer.harvest or "no reason"
            for answer in edge.answers
            if answer.status == "ok" and answer.harvest not in LANES
        ),
        wrong=[*_disagreeing(devices, edge), *_mistaken(printed), *_misplaced(stored, known)],
    )


def _disagreeing(devices: Sequence[Book], edge: Book) -> list[str]:
    recorded = {(answer.device, answer.photo_id): answer for answer in edge.answers}
    return [
        f"{answer.photo_id}: {answer.device} and the edge recorded different answers"
        for book in devices
        for answer in book.answers
        if recorded.get((answer.device, answer.photo_id)) != answer
    ]


def _mistaken(printed: Sequence[Line]) -> list[str]:
    """Return answers that belong to another photo; of photos taken before a restart the truth is gone."""
    return [
        f"{line.photo_id}: {line.truth} was answered {line.label or line.status}"
        for line in printed
        if line.truth is not None and (line.label or BROKEN) != line.truth
    ]


def _misplaced(stored: Sequence[Row], known: Mapping[bytes, str]) -> list[str]:
    return [
        f"{row.photo_id}: {known.get(row.image)} was stored as {row.edge_label}"
        for row in stored
        if known.get(row.image) != row.edge_label
    ]
