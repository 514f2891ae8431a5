"""Check what is on disk: every photo has one answer, every sample one row."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.faults.acceptance import Acceptance, digest
from tests.faults.components import Line
from tests.faults.databases import Contents, Row
from tests.faults.hostile import HOSTILE_DEVICES

LANES = frozenset({"auto", "hard", "audit"})
BROKEN = "broken"
"""The label of truncated photos, which are rejected."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """The counts of a run. The guarantees hold if `verdict` is empty."""

    photos: int
    answered: int
    samples: int
    rows: int
    photos_lost: int
    photos_doubled: int
    samples_lost: int
    samples_doubled: int
    rows_unsent: int
    still_waiting: int
    not_harvested: Mapping[str, int]
    wrong: Sequence[str]
    unsynced: int = 0
    vanished: int = 0

    @property
    def verdict(self) -> list[str]:
        """Return the violations of the guarantees."""
        found = [
            (not self.photos, "photos accepted: nothing was tested"),
            (not self.samples, "samples harvested: nothing was tested"),
            (self.unsynced, "photos accepted before the disk had them"),
            (self.vanished, "frames neither accepted nor refused"),
            (self.photos_lost, f"photos lost ({self.still_waiting} messages still wait in outboxes)"),
            (self.photos_doubled, "photos answered twice"),
            (self.samples_lost, "samples lost"),
            (self.samples_doubled, "samples stored twice"),
            (self.rows_unsent, "rows without a sample"),
            (len(self.wrong), "wrong: " + "; ".join(self.wrong[:3])),
            (sum(self.not_harvested.values()), f"not harvested: {dict(self.not_harvested)}"),
        ]
        return [f"{0 if count is True else count} {words}" for count, words in found if count]


def compare(
    devices: Sequence[Contents],
    edge: Contents,
    stored: Sequence[Row],
    printed: Sequence[Line],
    known: Mapping[bytes, str],
    acceptance: Acceptance | None = None,
) -> Ledger:
    """Compare accepted photos with answers, samples and rows.

    Args:
        devices: Contents of the devices' databases.
        edge: Contents of the edge's database.
        stored: Rows of the dataset.
        printed: Final answers printed by the devices. A device killed between recording and printing has
            printed less than it recorded, never more.
        known: Bytes of each photo to its label.
        acceptance: What was accepted, as recorded outside the product; None: as the outboxes themselves say.
    """
    answers = [answer for device in devices for answer in device.answers]
    if acceptance is None:
        acceptance, accepted = Acceptance(), sum(device.accepted for device in devices)
        lost = accepted - len(answers)
    else:
        accepted = len(acceptance.pictures)
        lost = len(acceptance.pictures.keys() - {answer.photo_id for answer in answers})
    # Where an edge was killed before its answer was recorded, the next one says that the sample waits.
    harvested = {answer.photo_id for answer in edge.answers if answer.harvest in {*LANES, "already-waiting"}}
    copies = Counter(row.photo_id for row in stored)
    shown = Counter(line.photo_id for line in printed)
    return Ledger(
        photos=accepted,
        answered=len(answers),
        samples=len(harvested),
        rows=len(stored),
        photos_lost=lost,
        photos_doubled=shown.total() - len(shown),
        samples_lost=len(harvested - copies.keys()),
        samples_doubled=copies.total() - len(copies),
        rows_unsent=len(copies.keys() - harvested),
        still_waiting=sum(contents.waiting for contents in (*devices, edge)),
        not_harvested=Counter(
            answer.harvest or "no reason"
            for answer in edge.answers
            if answer.status == "ok" and answer.harvest not in LANES and answer.device not in HOSTILE_DEVICES
        ),
        wrong=[
            *_disagreeing(devices, edge),
            *_mistaken(printed),
            *_misplaced(stored, known, acceptance.pictures),
        ],
        unsynced=acceptance.unsynced,
        vanished=acceptance.vanished,
    )


def _disagreeing(devices: Sequence[Contents], edge: Contents) -> list[str]:
    recorded = {(answer.device, answer.photo_id): answer for answer in edge.answers}
    return [
        f"{answer.photo_id}: {answer.device} and the edge recorded different answers"
        for device in devices
        for answer in device.answers
        if recorded.get((answer.device, answer.photo_id)) != answer
    ]


def _mistaken(printed: Sequence[Line]) -> list[str]:
    """Return answers that belong to another photo; photos taken before a restart have no true label."""
    return [
        f"{line.photo_id}: {line.truth} was answered {line.label or line.status}"
        for line in printed
        if line.truth is not None and (line.label or BROKEN) != line.truth
    ]


def _misplaced(stored: Sequence[Row], known: Mapping[bytes, str], pictures: Mapping[str, str]) -> list[str]:
    """Return samples with another photo's picture or label; hostile devices' own do not count."""
    ours = [row for row in stored if row.device not in HOSTILE_DEVICES]
    labels = [
        f"{row.photo_id}: {known.get(row.image)} was stored as {row.edge_label}"
        for row in ours
        if known.get(row.image) != row.edge_label
    ]
    return labels + [
        f"{row.photo_id}: was stored with the picture of another photo"
        for row in ours
        if pictures.get(row.photo_id, digest(row.image)) != digest(row.image)
    ]
