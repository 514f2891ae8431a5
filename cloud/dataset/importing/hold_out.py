"""Choose which photos of an import are gold: per class, frozen, and without a near-duplicate in training."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cloud.dataset.example import MIN_CLASS_LABELS
from cloud.dataset.fingerprint import Fingerprint, NearDuplicates
from schemas.codec import content_id


@dataclass(frozen=True, slots=True)
class Photo:
    """What decides whether a photo is held out.

    Attributes:
        photo_id: 32 hex digits.
        label: Its class.
        fingerprint: Of its picture.
        gold: Whether it is in the gold set; None if it is new.
    """

    photo_id: str
    label: str
    fingerprint: Fingerprint
    gold: bool | None = None


def choose_gold(photos: Sequence[Photo], share: float) -> set[str]:
    """Return the ids of the new photos that become gold.

    Photos that are stored already keep their side, and near-duplicates are all on one side. Otherwise the
    digest of a photo decides, so that the same photos always give the same gold set. At least
    `MIN_CLASS_LABELS` photos of a class are left to train on.

    Args:
        photos: The new ones and the stored ones; no id twice.
        share: Of each class, 0 to 1; reached as nearly as the groups of near-duplicates allow, not exceeded
            by more than half a photo.
    """
    gold: set[str] = set()
    sizes: defaultdict[str, int] = defaultdict(int)
    held: defaultdict[str, int] = defaultdict(int)
    for photo in photos:
        sizes[photo.label] += 1
        held[photo.label] += photo.gold is True
    groups = sorted(near_groups(photos), key=lambda group: min(_draw(photo) for photo in group))
    free = []
    for group in groups:
        sides = {photo.gold for photo in group} - {None}
        if not sides:
            free.append(group)
        elif True in sides:
            # Its twin is gold already: in training it would be left out.
            for photo in group:
                held[photo.label] += photo.gold is None
            gold |= {photo.photo_id for photo in group if photo.gold is None}
    for group in free:
        wanted = Counter(photo.label for photo in group)  # several, if one of them has a wrong label
        if all(held[label] + count <= _target(share, sizes[label]) for label, count in wanted.items()):
            gold |= {photo.photo_id for photo in group}
            for label, count in wanted.items():
                held[label] += count
    return gold


def _target(share: float, size: int) -> int:
    return min(int(share * size + 0.5), size - MIN_CLASS_LABELS)


def near_groups(photos: Iterable[Photo]) -> list[list[Photo]]:
    """Group near-duplicates: each photo is near to the first one of its group."""
    # To the first only: a chain of similar frames would join a whole day of one camera into one group.
    firsts: list[Fingerprint] = []
    groups: list[list[Photo]] = []
    index = NearDuplicates()
    # Stored photos first, so that a new one joins the group, and the side, of a stored one.
    for photo in sorted(photos, key=lambda photo: (photo.gold is None, photo.photo_id)):
        found = index.find(photo.fingerprint)
        if found is None:
            firsts.append(photo.fingerprint)
            index.add(photo.fingerprint)
            groups.append([photo])
        else:
            groups[found].append(photo)
    return groups


def _draw(photo: Photo) -> str:
    # Not the id itself: the ids of bare pictures are digests, by which others may sort or sample, too.
    return content_id(f"hold out {photo.photo_id}".encode())
