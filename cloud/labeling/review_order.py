"""Order the unlabelled samples for review: plain functions, without I/O."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec
import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from cloud.labeling.coverage import Coverage
from cloud.modeling.arrays import Bools, Floats
from schemas import lanes

NEAR_BITS = 6
"""Largest Hamming distance of the difference hashes of near-duplicates, as at the edge."""
POOL_PHOTOS = 2048
"""Most photos whose coverage is computed: more are represented by a random sample of each device's photos."""
QUOTA = 2.0
"""Largest share of the list that one device or one predicted class takes, in units of an equal share."""

_SECOND_KEY_SHARE = 0.7
"""Photos whose gain is at least this share of the largest one are ordered by disagreement and uncertainty."""
_MIN_GAIN = 1e-6

Camera: TypeAlias = tuple[str | None, str | None]
Reason: TypeAlias = Literal["audit", "coverage", "disagreement", "uncertainty", "near-duplicate"]

REASONS: dict[Reason, str] = {
    "audit": "drawn at random, to measure the accuracy",
    "coverage": "unlike the labelled photos, like many unlabelled ones",
    "disagreement": "teacher and model disagree",
    "uncertainty": "the model is uncertain",
    "near-duplicate": "nothing else is left: like a listed photo",
}


class UnlabelledPhoto(msgspec.Struct, frozen=True, kw_only=True):
    """The columns of a photo without a human label that decide its rank; the image is not among them.

    `reason` is not a column: it is why the photo is listed.
    """

    photo_id: str
    node: str | None = None
    device: str | None = None
    dhash: str | None = None
    lane: str | None = None
    edge_label: str | None = None
    teacher_label: str | None = None
    confidence: float | None = None
    margin: float | None = None
    entropy: float | None = None
    novelty: float | None = None
    reason: Reason | None = None

    @property
    def camera(self) -> Camera:
        """Node and device: names of devices are unique on one node only."""
        return self.node, self.device


@dataclass(frozen=True, slots=True)
class Pool:
    """Embeddings of a part of the unlabelled photos.

    Attributes:
        ids: Of the photos.
        embeddings: Theirs, `[N, D]`.
        weights: How many unlabelled photos each one stands for, `[N]`, above 0.
        labelled: Embeddings of labelled photos, `[M, D]`.
    """

    ids: Sequence[str]
    embeddings: NDArray[np.floating]
    weights: Floats
    labelled: NDArray[np.floating]


def informativeness(photo: UnlabelledPhoto) -> float:
    """Return how informative a human label would be, in [0, 1]: the largest of four signals.

    They are the normalised entropy, 1 - margin, 1 - confidence, and the novelty scaled so that 1, where the
    photo is out of distribution, becomes 0.5. Without any of them the result is 1.
    """
    signals = (
        photo.entropy,
        None if photo.margin is None else 1 - photo.margin,
        None if photo.novelty is None else photo.novelty / (1 + photo.novelty),
        None if photo.confidence is None else 1 - photo.confidence,
    )
    return max((signal for signal in signals if signal is not None), default=1.0)


def reason_text(photo: UnlabelledPhoto) -> str:
    """Return why a listed photo is asked about, in words; empty if it was not listed."""
    return "" if photo.reason is None else REASONS[photo.reason]


def _is_in_doubt(photo: UnlabelledPhoto) -> bool:
    """Return whether a person should label a photo: two models agree on those that none has to.

    Where no teacher has answered, the only model that is sure of a photo of lane auto is the one that
    chose the lane. The labels of people have to test it too.
    """
    agreed = photo.lane == lanes.AUTO and photo.teacher_label is not None and not _is_disputed(photo)
    return photo.lane != lanes.AUDIT and not agreed


def pool_weights(photos: Iterable[UnlabelledPhoto], limit: int = POOL_PHOTOS) -> dict[str, float]:
    """Choose the photos that represent all that are in doubt: a random sample of each device's photos.

    Photos of lane auto on which a teacher and the edge agree have a free label already: to cover them as well
    would spend people's labels where the models are right.

    Args:
        photos: In any order.
        limit: Maximum number.

    Returns:
        By id, how many photos it stands for. A device with few photos is represented by all of them.
    """
    by_device: defaultdict[Camera, list[str]] = defaultdict(list)
    for photo in filter(_is_in_doubt, photos):
        by_device[photo.camera].append(photo.photo_id)
    weights: dict[str, float] = {}
    smallest_first = sorted(by_device.values(), key=lambda ids: (len(ids), min(ids)))
    for number, ids in enumerate(smallest_first):
        count = min(len(ids), math.ceil((limit - len(weights)) / (len(smallest_first) - number)))
        # By id, which is random: a uniform sample that stays the same while photos are added.
        weights |= dict.fromkeys(sorted(ids)[:count], len(ids) / max(1, count))
    return weights


def most_informative(
    photos: Iterable[UnlabelledPhoto], limit: int, pool: Pool | None = None
) -> list[UnlabelledPhoto]:
    """Choose the photos to label, in a deterministic order.

    Args:
        photos: In any order.
        limit: Maximum number of photos.
        pool: Embeddings of some of them; None if there are none.

    Returns:
        First lane `audit`, which fills at most half of the list while there are others. Then the photos that
        best cover the unlabelled ones given what is labelled; of almost equal gain first those with different
        labels by teacher and edge, then by `informativeness`, then by id. Photos without an embedding follow
        in that second order. One device or predicted class gets at most twice its equal share while there are
        others. A near-duplicate of a listed photo comes after all others, unless it is of lane `audit`.
    """
    ranked = sorted(photos, key=_sort_key)
    audits = sum(photo.lane == lanes.AUDIT for photo in ranked)
    max_audits = max((limit + 1) // 2, limit - (len(ranked) - audits))
    audited = [structs.replace(photo, reason="audit") for photo in ranked[: min(audits, max_audits, limit)]]
    order = _Order(ranked[audits:], limit, pool)
    for photo in audited:
        order.take(photo)
    return audited + order.best(limit - len(audited))


def _sort_key(photo: UnlabelledPhoto) -> tuple[int, float, str]:
    if photo.lane == lanes.AUDIT:
        # By id, which is random: after any number of labels they are an unbiased sample.
        return 0, 0.0, photo.photo_id
    return 1 if _is_disputed(photo) else 2, -informativeness(photo), photo.photo_id


def _hash_of(photo: UnlabelledPhoto) -> int | None:
    """Return a photo's difference hash, None if it has none or it is damaged."""
    try:
        return None if photo.dhash is None else int(photo.dhash, 16)
    except ValueError:
        return None


def _is_disputed(photo: UnlabelledPhoto) -> bool:
    return photo.teacher_label is not None and photo.teacher_label != photo.edge_label


class _Order:
    """Hands out photos one by one; what was handed out before decides what comes next.

    Args:
        ranked: The photos, by the second key.
        limit: Length of the whole list, for the quotas.
        pool: As for `most_informative`.
    """

    def __init__(self, ranked: Sequence[UnlabelledPhoto], limit: int, pool: Pool | None) -> None:
        self._ranked = ranked
        self._open: Bools = np.ones(len(ranked), bool)
        self._hashes: list[int] = []
        self._near_duplicates: list[UnlabelledPhoto] = []
        self._groups = [np.array([str(value) for value in column], dtype=str) for column in _groups(ranked)]
        self._quotas = [math.ceil(QUOTA * limit / max(1, len(np.unique(group)))) for group in self._groups]
        self._taken: list[Counter[str]] = [Counter() for _ in self._groups]
        self._full: Bools = np.zeros(len(ranked), bool)
        self._coverage: Coverage | None = None
        self._in_pool: dict[str, int] = {}
        if pool is not None and len(pool.ids):
            self._coverage = Coverage(pool.embeddings, pool.labelled, pool.weights)
            self._in_pool = {photo_id: at for at, photo_id in enumerate(pool.ids)}
        # `_places[i]` is the position in the pool of `_ranked[_members[i]]`.
        members = [at for at, photo in enumerate(ranked) if photo.photo_id in self._in_pool]
        self._members = np.array(members, np.int64)
        self._places = np.array([self._in_pool[ranked[at].photo_id] for at in members], np.int64)

    def take(self, photo: UnlabelledPhoto) -> None:
        """Count a photo as listed."""
        if (dhash := _hash_of(photo)) is not None:
            self._hashes.append(dhash)
        if self._coverage is not None and photo.photo_id in self._in_pool:
            self._coverage.add(self._in_pool[photo.photo_id])

    def best(self, count: int) -> list[UnlabelledPhoto]:
        """Hand out the best photos, at most `count`; near-duplicates of others last."""
        chosen: list[UnlabelledPhoto] = []
        while len(chosen) < count and self._open.any():
            at, reason = self._next()
            self._open[at] = False
            photo = structs.replace(self._ranked[at], reason=reason)
            if self._is_near(photo):
                self._near_duplicates.append(structs.replace(photo, reason="near-duplicate"))
                continue
            chosen.append(photo)
            self.take(photo)
            self._fill(at)
        return (chosen + self._near_duplicates)[:count]

    def _next(self) -> tuple[int, Reason]:
        """Return the position of the next photo, and why it is the next."""
        within = self._open & ~self._full
        allowed = within if within.any() else self._open  # the quotas hold only while there are others
        at = self._covering(allowed)
        if at is not None:
            return at, "coverage"
        at = int(allowed.argmax())  # the first by the second key
        return at, "disagreement" if _is_disputed(self._ranked[at]) else "uncertainty"

    def _covering(self, allowed: Bools) -> int | None:
        """Return the first photo by the second key whose gain is about the largest; None without a gain."""
        usable = allowed[self._members]
        if self._coverage is None or not usable.any():
            return None
        gains = self._coverage.gains()[self._places]
        largest = gains[usable].max()
        if largest < _MIN_GAIN:
            return None
        return int(self._members[np.flatnonzero(usable & (gains >= _SECOND_KEY_SHARE * largest))[0]])

    def _is_near(self, photo: UnlabelledPhoto) -> bool:
        dhash = _hash_of(photo)
        return dhash is not None and any((dhash ^ other).bit_count() <= NEAR_BITS for other in self._hashes)

    def _fill(self, at: int) -> None:
        """Count a photo in the quotas of its device and of its class."""
        for group, taken, quota in zip(self._groups, self._taken, self._quotas, strict=True):
            taken[str(group[at])] += 1
            if taken[str(group[at])] >= quota:
                self._full |= group == group[at]


def _groups(
    photos: Sequence[UnlabelledPhoto],
) -> tuple[list[Camera], list[str | None]]:
    """Return the camera and the predicted class of each photo."""
    return [photo.camera for photo in photos], [photo.edge_label for photo in photos]
