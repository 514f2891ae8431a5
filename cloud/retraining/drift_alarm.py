"""Drift alarms: the embeddings of new photos differ from earlier ones, fleet-wide or at one device.

An alarm means that photos look different, not that answers are wrong: it asks for labels, which measure that.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from cloud.dataset.rows.typed_rows import typed_rows
from cloud.dataset.store import HAS_IMAGE, Store
from cloud.evaluation.metrics import significant
from cloud.modeling.kernels import is_usable, most_common_length
from cloud.retraining.triggers import DriftAlarm, Triggers
from cloud.retraining.two_sample import PERMUTATIONS, Side, discrepancy, mmd_test
from schemas.lanes import AUDIT

FLEET = "the fleet"
"""Scope of the test over all devices; no `NODE/DEVICE` can be this."""
MAX_DEVICES = 100
"""Most devices that are tested one by one: those whose block was completed last."""
MIN_OWN_REFERENCE = 20
"""Earlier photos of a device from which on its new ones are compared with them."""

_REFERENCE_BLOCKS = 4
"""Size of the reference, in units of `drift_photos`."""
_EARLIER_BLOCKS = 10
"""Most blocks of the reference from which the difference without drift is estimated."""
_MAX_PHOTOS = 20_000
_BY_ARRIVAL = ("received_at_ms", "photo_id")
_BY_NEWEST = ("-received_at_ms", "-photo_id")
_SAMPLES = f"{HAS_IMAGE} AND origin = 'sample' AND embedding IS NOT NULL"

T = TypeVar("T")
Vectors = dict[str, NDArray[np.float32]]
_Block = tuple[str, str, str]
Tested = dict[_Block, float]
"""P-value by scope, last photo of the reference, and last photo of the block."""


class _Photo(msgspec.Struct, frozen=True, order=True):
    """A sample; compares by arrival."""

    received_at_ms: int
    photo_id: str
    node: str | None
    device: str | None

    @property
    def camera(self) -> str:
        """`NODE/DEVICE`, because names of devices are unique on one node only."""
        return f"{self.node}/{self.device}"


@dataclass(frozen=True, slots=True)
class _Samples:
    """Samples before and after the last training saw the dataset, each in order of arrival."""

    reference: Sequence[_Photo]
    recent: Sequence[_Photo]


@dataclass(frozen=True, slots=True)
class _Scope:
    """What is tested.

    Attributes:
        reference: all earlier photos to compare with, in order of arrival.
        recent: the newest full block.
        several: whether it is of several devices, each of which is compared with itself.
        new: whether it is a device without earlier photos, which is compared with the others.
    """

    reference: Sequence[_Photo]
    recent: Sequence[_Photo]
    several: bool = False
    new: bool = False

    def against(self, tested: Sequence[_Photo], without: Iterable[_Photo] = ()) -> _Samples:
        """Return a block with the part of the reference that it is compared with."""
        left_out, devices = {one.photo_id for one in without}, {one.camera for one in tested}
        reference = [
            one
            for one in self.reference
            if one.photo_id not in left_out and (not self.several or one.camera in devices)
        ]
        return _Samples(_spread(reference, _REFERENCE_BLOCKS * len(tested)), tested)

    def earlier_blocks(self) -> Iterator[_Samples]:
        """Yield blocks of the reference, evenly spread over time, each with others to compare it with."""
        size = len(self.recent)
        for number in _spread(range(len(self.reference) // size), _EARLIER_BLOCKS):
            block = self.reference[number * size :][:size]
            yield self.against(block, block)


def find_alarm(
    store: Store,
    model_version: int,
    trained_at: int | None,
    triggers: Triggers,
    tested: Tested | None = None,
) -> DriftAlarm | None:
    """Test the newest full block of photos of each scope against those before the last training.

    A block is tested once: looking again with each photo would raise false alarms. Samples are those that one
    version answered, of the lane audit if it has enough, because other lanes depend on the harvest policy.

    Args:
        store: The dataset.
        model_version: The version in service.
        trained_at: Version of the dataset that the last training saw; None if it is unknown.
        triggers: Size of a block, and the level.
        tested: P-values of blocks that were tested before, brought up to date.

    Returns:
        None without drift, and while there are too few photos.

    Raises:
        TransientError: The dataset cannot be read now.
    """
    answered = f"{_SAMPLES} AND model_version = {model_version}"
    sides = _read_sides(store, f"{answered} AND lane = '{AUDIT}'", trained_at, triggers.drift_photos)
    if min(len(sides.reference), len(sides.recent)) < triggers.drift_photos:
        sides = _read_sides(store, answered, trained_at, triggers.drift_photos)
    scopes = _scopes(sides, triggers.drift_photos)
    # So many that the smallest p-value is significant among all of them.
    permutations = max(PERMUTATIONS, math.ceil(2 * len(scopes) / triggers.drift_level))
    known, found = tested or {}, dict[_Block, float]()
    for scope, one in scopes.items():
        block = scope, one.reference[-1].photo_id, one.recent[-1].photo_id
        p_value = known[block] if block in known else _test(store, one, triggers.drift_level, permutations)
        found[block] = p_value
    if tested is not None:
        tested.clear()  # other blocks are not asked for again
        tested.update(found)
    p_values = {scope: p_value for (scope, *_), p_value in found.items()}
    drifted = significant(p_values, triggers.drift_level)
    if not drifted:
        return None
    since_ms = max(sides.reference).received_at_ms
    photos = sum(len(scopes[scope].recent) for scope in drifted if scope != FLEET) or triggers.drift_photos
    return DriftAlarm(tuple(drifted), p_values[drifted[0]], photos, since_ms)


def _test(store: Store, scope: _Scope, level: float, permutations: int) -> float:
    """Return the p-value of a block; 1 if most photos of a side have no usable embedding."""
    pair = scope.against(scope.recent)
    vectors = _read_embeddings(store, [pair])
    both = _sides(pair, vectors, several=scope.several)
    if both is None:
        return 1.0
    p_value = mmd_test(*both, seed=0, permutations=permutations).p_value
    return 1.0 if p_value <= level and _is_usual(store, scope, both, vectors) else p_value


def _read_sides(store: Store, where: str, trained_at: int | None, block: int) -> _Samples:
    """Read the samples on both sides; until a training has seen a block, the first ones are the reference."""
    version = trained_at if trained_at is not None and store.count(where, trained_at) >= block else None
    if version is not None:
        reference = _newest(store, where, version, 1)
    else:
        rows = store.scan(
            _Photo.__struct_fields__, where=where, limit=_REFERENCE_BLOCKS * block, order=_BY_ARRIVAL
        )
        reference = list(typed_rows(rows, _Photo))
    if not reference:
        return _Samples([], [])
    last = reference[-1]
    after = (
        f"{where} AND (received_at_ms > {last.received_at_ms}"
        f" OR received_at_ms = {last.received_at_ms} AND photo_id > '{last.photo_id}')"
    )
    return _Samples(reference, _newest(store, after, store.version, block))


def _newest(store: Store, where: str, version: int, block: int) -> list[_Photo]:
    """Read at most `_MAX_PHOTOS`, those that arrived last, in order of arrival."""
    count = store.count(where, version)
    if not count:  # Lance cannot sort with a limit of 0
        return []
    # Older ones are left out many at a time and in full blocks: which photos are a block then stays the same.
    step = max(1, _MAX_PHOTOS // 2 // block) * block
    left_out = -(-max(0, count - _MAX_PHOTOS) // step) * step
    rows = store.scan(
        _Photo.__struct_fields__, where=where, version=version, limit=count - left_out, order=_BY_NEWEST
    )
    return list(typed_rows(rows, _Photo))[::-1]


def _scopes(sides: _Samples, block: int) -> dict[str, _Scope]:
    """Return what to compare: the fleet, and each device that has a full block of new photos."""
    if min(len(sides.reference), len(sides.recent)) < block:
        return {}
    scopes = {FLEET: _Scope(sides.reference, _newest_block(sides.recent, block), several=True)}
    known, new = _by_device(sides.reference), _by_device(sides.recent)
    full = {device: _newest_block(photos, block) for device, photos in new.items() if len(photos) >= block}
    # Each block gets its turn, also where many devices send few photos.
    for device in sorted(full, key=lambda device: (full[device][-1], device), reverse=True)[:MAX_DEVICES]:
        if device not in known:
            # It has no photos to compare with.
            scopes[device] = _Scope(sides.reference, full[device], new=True)
        elif len(new) > 1 and len(known[device]) >= MIN_OWN_REFERENCE:
            # With fewer it would be compared with others, from which it always differs.
            scopes[device] = _Scope(known[device], full[device])
    return scopes


def _by_device(photos: Sequence[_Photo]) -> dict[str, list[_Photo]]:
    """Group photos by `NODE/DEVICE`."""
    devices: defaultdict[str, list[_Photo]] = defaultdict(list)
    for photo in photos:
        if photo.device is not None:
            devices[photo.camera].append(photo)
    return devices


def _spread(items: Sequence[T], count: int) -> list[T]:
    """Return at most `count` of them, evenly spread: nights are in the reference as days are."""
    positions = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[position] for position in positions]


def _newest_block(photos: Sequence[_Photo], block: int) -> Sequence[_Photo]:
    """Return the newest full block; blocks are counted from the first photo and do not overlap."""
    end = len(photos) - len(photos) % block
    return photos[end - block : end]


def _is_usual(store: Store, scope: _Scope, newest: tuple[Side, Side], known: Vectors) -> bool:
    """Return whether an earlier block differs from the reference as much as the newest one does.

    Photos that follow each other are alike, so that the test above takes each night for a drift.
    """
    if scope.new:
        return False  # the device has no earlier photos
    drift, blocks = discrepancy(*newest), list(scope.earlier_blocks())
    vectors = known | _read_embeddings(store, blocks, known)
    return any(
        discrepancy(*both) >= drift
        for block in blocks
        if (both := _sides(block, vectors, several=scope.several)) is not None
    )


def _read_embeddings(
    store: Store, pairs: Iterable[_Samples], known: Vectors | None = None
) -> dict[str, NDArray[np.float32]]:
    """Read embeddings that are not known yet, without those that cannot be compared with most others."""
    known = known or {}
    wanted = {photo.photo_id for one in pairs for photo in (*one.reference, *one.recent)} - known.keys()
    if not wanted:
        return {}
    found = store.find(sorted(wanted), ["embedding"])
    vectors = {photo_id: np.array(row["embedding"] or (), np.float32) for photo_id, row in found.items()}
    usable = {photo_id: vector for photo_id, vector in vectors.items() if is_usable(vector)}
    if not usable:
        return {}
    length = most_common_length((known or usable).values())
    return {photo_id: vector for photo_id, vector in usable.items() if len(vector) == length}


def _sides(pair: _Samples, vectors: Vectors, *, several: bool) -> tuple[Side, Side] | None:
    """Return both sides of a comparison, None if most photos of one have no usable embedding."""
    sides = []
    for photos in (pair.reference, pair.recent):
        usable = [photo for photo in photos if photo.photo_id in vectors]
        if len(usable) <= len(photos) // 2:
            return None
        strata = [photo.camera for photo in usable] if several else None
        sides.append(Side(np.stack([vectors[photo.photo_id] for photo in usable]), strata))
    return sides[0], sides[1]
