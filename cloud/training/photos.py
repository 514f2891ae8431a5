"""The photos of a training: read from dataset and registry, without those that cannot be used."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from cloud.dataset.example import Example, LeftOut, classes_below_minimum
from cloud.dataset.store import Store
from cloud.dataset.training_set import device_groups, read_examples
from cloud.evaluation.audit_set import audit_slice, hold_out_audit
from cloud.evaluation.unseen import unseen_photos
from cloud.progress import Progress
from cloud.registry.registry import Champion, Registry
from cloud.registry.renamed_classes import with_current_names
from cloud.training.groups.sightings import Sightings, read_sightings

if TYPE_CHECKING:
    from cloud.training.distributed import Team
    from cloud.training.photo_check import PhotoChecker


class Photos(NamedTuple):
    """What a training reads from dataset and registry."""

    labelled: list[Example]
    gold: list[Example]
    audit: list[Example]
    waiting: dict[str, int]
    left_out: list[LeftOut]
    champion: Champion | None
    dataset_version: int  # 0 without a dataset
    unseen: frozenset[str]
    labels: frozenset[str] = frozenset()  # by people, also of classes that are left out
    sightings: Sightings | None = None  # of devices in groups; None if there are no groups

    @classmethod
    def none(cls, champion: Champion | None) -> "Photos":
        """Return no photos, where there is no dataset."""
        return cls([], [], [], {}, [], champion, 0, frozenset())


def read_photos(store: Store, registry: Registry, wanted: int | None, team: "Team") -> Photos:
    """Read the photos to train on and those to evaluate on."""
    if team.chief:
        store.mark_trained()
    # Workers may see different newest versions and folders: all use those of the first one.
    dataset_version = team.agree(wanted or store.version)
    champion = registry.champion()
    if champion is not None:
        champion = replace(champion, card=with_current_names(champion.card, store))
    # 0 for "no champion" and for "unknown": workers exchange integers only.
    since_ms = team.agree(0 if champion is None else champion.card.created_at_ms)
    trained_at = team.agree(0 if champion is None else champion.card.dataset_version or 0)
    unseen = (
        unseen_photos(store, trained_at or None, since_ms, version=dataset_version)
        if since_ms
        else frozenset[str]()
    )
    audit = audit_slice(store, unseen, version=dataset_version)
    labelled = read_examples(store, version=dataset_version)
    gold = read_examples(store, version=dataset_version, split="gold")
    left_out = [*labelled.left_out, *gold.left_out]
    groups = device_groups(store, dataset_version)
    return Photos(
        labelled.examples,
        gold.examples,
        audit,
        {},
        left_out,
        champion,
        dataset_version,
        unseen,
        sightings=read_sightings(store, registry.cards(), groups, dataset_version) if groups else None,
    )


def usable_photos(
    photos: Photos, checker: "PhotoChecker", classes: tuple[str, ...] | None, progress: Progress
) -> Photos:
    """Leave out what cannot be trained on or evaluated on; afterwards no photo is among both."""
    from cloud.training.photo_check import EQUALS_AUDIT, NO_PERSON, with_classes  # noqa: PLC0415

    labelled, bad = checker.decodable(photos.labelled, progress)
    gold, bad_gold = checker.decodable(photos.gold, progress)
    audit, _ = checker.decodable(photos.audit, progress)  # audited photos are among the labelled
    labels = frozenset(photo.label for photo in (*labelled, *gold) if photo.human)
    labelled, in_gold = checker.unlike(labelled, gold)
    known = _near_seen(labelled, photos.unseen, checker)
    audit = [one for one in audit if one.photo_id not in known]
    _, near = checker.unlike(labelled, audit)
    labelled, audit = hold_out_audit(labelled, audit, {str(one.photo_id) for one in near})
    labelled, in_audit = checker.unlike(labelled, audit, EQUALS_AUDIT)
    waiting = {} if classes else classes_below_minimum(labelled, gold)
    if classes:
        labelled, other = with_classes(labelled, classes)
        gold, other_gold = with_classes(gold, classes)
        audit, _ = with_classes(audit, classes)
    else:
        # A class that only models have named was never confirmed; gold photos of a class that the version
        # does not know could only be wrong. Classes that wait for labels are in `waiting`; the gate
        # learns from `labels` if the champion knows one of them.
        trained = {photo.label for photo in labelled if photo.human} - waiting.keys()
        labelled, other = with_classes(labelled, trained, NO_PERSON)
        gold, other_gold = with_classes(gold, trained, NO_PERSON)
        other, other_gold = (
            [one for one in some if one.detail not in waiting] for some in (other, other_gold)
        )
    left_out = [*photos.left_out, *bad, *bad_gold, *in_gold, *in_audit, *other, *other_gold]
    return photos._replace(
        labelled=labelled,
        gold=gold,
        audit=audit,
        waiting=waiting,
        left_out=left_out,
        labels=labels,
        unseen=photos.unseen - known,
    )


def _near_seen(labelled: Sequence[Example], unseen: Collection[str], checker: "PhotoChecker") -> set[str]:
    """Return the ids of photos that the champion has not seen, but that show the same as one that it has.

    Judged on such a photo it would be praised for its memory, and its twins be kept out of the training.
    """
    new = [one for one in labelled if one.photo_id in unseen]
    _, near = (
        checker.unlike(new, [one for one in labelled if one.photo_id not in unseen]) if new else ([], [])
    )
    return {one.photo_id for one in near if one.photo_id is not None}
