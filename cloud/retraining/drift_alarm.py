"""Drift alarms: the embeddings of new photos differ from earlier ones, fleet-wide or at one device.

An alarm says that photos look different, not that answers are wrong: it asks for labels, which measure that.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from cloud.dataset.store import HAS_IMAGE, Store
from cloud.evaluation.metrics import significant
from cloud.modeling.kernels import is_usable, most_common_length
from cloud.retraining.triggers import DriftAlarm, Triggers
from cloud.retraining.two_sample import mmd_test
from schemas.lanes import AUDIT

FLEET = "the fleet"
"""Scope of the test over all devices; no `NODE/DEVICE` can be this."""
MAX_DEVICES = 20
"""Most devices that are tested one by one: those with the most new photos."""

_REFERENCE_BLOCKS = 4
"""Size of the reference, in units of `drift_photos`."""
_MAX_PHOTOS = 20_000
_BY_ARRIVAL = ("received_at_ms", "photo_id")
_BY_NEWEST = ("-received_at_ms", "-photo_id")
_SAMPLES = f"{HAS_IMAGE} AND origin = 'sample' AND embedding IS NOT NULL"


class _Photo(msgspec.Struct, frozen=True, order=True):
    """A sample; compares by arrival."""

    received_at_ms: int
    photo_id: str
    node: str | None
    device: str | None


@dataclass(frozen=True, slots=True)
class _Samples:
    """Samples before and after the last training saw the dataset, each in order of arrival."""

    reference: Sequence[_Photo]
    recent: Sequence[_Photo]


def find_alarm(
    store: Store, model_version: int, trained_at: int | None, triggers: Triggers
) -> DriftAlarm | None:
    """Test the newest full block of photos of each scope against those before the last training.

    A block is tested once: looking again with each photo would raise false alarms. Samples are those that one
    version answered, of the lane audit if it has enough, because other lanes depend on the harvest policy.

    Args:
        store: The dataset.
        model_version: The version in service.
        trained_at: Version of the dataset that the last training saw; None if it is unknown.
        triggers: Size of a block, and the level.

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
    if not scopes:
        return None
    vectors = _read_embeddings(store, scopes)
    p_values = {}
    for scope, one in scopes.items():
        reference, recent = _vectors(one.reference, vectors), _vectors(one.recent, vectors)
        if min(len(reference), len(recent)) > triggers.drift_photos // 2:
            p_values[scope] = mmd_test(np.stack(reference), np.stack(recent), seed=0).p_value
    drifted = significant(p_values, triggers.drift_level)
    if not drifted:
        return None
    since_ms = max(sides.reference).received_at_ms
    photos = sum(len(scopes[scope].recent) for scope in drifted if scope != FLEET) or triggers.drift_photos
    return DriftAlarm(tuple(drifted), p_values[drifted[0]], photos, since_ms)


def _read_sides(store: Store, where: str, trained_at: int | None, block: int) -> _Samples:
    """Read the samples on both sides; until a training has seen a block, the first ones are the reference."""
    version = trained_at if trained_at is not None and store.count(where, trained_at) >= block else None
    if version is not None:
        reference = _newest(store, where, version, 1)
    else:
        rows = store.scan(
            _Photo.__struct_fields__, where=where, limit=_REFERENCE_BLOCKS * block, order=_BY_ARRIVAL
        )
        reference = [msgspec.convert(row, _Photo) for row in rows]
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
    return [msgspec.convert(row, _Photo) for row in rows][::-1]


def _scopes(sides: _Samples, block: int) -> dict[str, _Samples]:
    """Return what to compare: the fleet, and each device that has a full block of new photos."""
    known, new = _by_device(sides.reference), _by_device(sides.recent)
    devices = sorted(new, key=lambda device: (-len(new[device]), device))[:MAX_DEVICES]
    sides_by_scope = {FLEET: sides} | {
        # A new device has no photos of its own to compare with: it is compared with the others'.
        device: _Samples(
            known[device] if len(known.get(device, ())) >= block else sides.reference, new[device]
        )
        for device in devices
        if len(new) > 1 or device not in known
    }
    return {
        scope: _Samples(_spread(one.reference, _REFERENCE_BLOCKS * block), _newest_block(one.recent, block))
        for scope, one in sides_by_scope.items()
        if min(len(one.reference), len(one.recent)) >= block
    }


def _by_device(photos: Sequence[_Photo]) -> dict[str, list[_Photo]]:
    """Group photos by `NODE/DEVICE`."""
    devices: defaultdict[str, list[_Photo]] = defaultdict(list)
    for photo in photos:
        if photo.device is not None:
            # With its node: names of devices are unique on one node only.
            devices[f"{photo.node}/{photo.device}"].append(photo)
    return devices


def _spread(photos: Sequence[_Photo], count: int) -> list[_Photo]:
    """Return at most `count` photos, evenly spread over time: nights are in the reference as days are."""
    positions = np.linspace(0, len(photos) - 1, min(count, len(photos))).round().astype(int)
    return [photos[position] for position in positions]


def _newest_block(photos: Sequence[_Photo], block: int) -> Sequence[_Photo]:
    """Return the newest full block; blocks are counted from the first photo and do not overlap."""
    end = len(photos) - len(photos) % block
    return photos[end - block : end]


def _read_embeddings(store: Store, scopes: Mapping[str, _Samples]) -> dict[str, NDArray[np.float32]]:
    """Read the embeddings by id, without those that cannot be compared with most others."""
    wanted = {photo.photo_id for one in scopes.values() for photo in (*one.reference, *one.recent)}
    found = store.find(sorted(wanted), ["embedding"])
    vectors = {photo_id: np.array(row["embedding"] or (), np.float32) for photo_id, row in found.items()}
    usable = {photo_id: vector for photo_id, vector in vectors.items() if is_usable(vector)}
    if not usable:
        return {}
    length = most_common_length(usable.values())
    return {photo_id: vector for photo_id, vector in usable.items() if len(vector) == length}


def _vectors(
    photos: Sequence[_Photo], vectors: Mapping[str, NDArray[np.float32]]
) -> list[NDArray[np.float32]]:
    return [vectors[photo.photo_id] for photo in photos if photo.photo_id in vectors]
