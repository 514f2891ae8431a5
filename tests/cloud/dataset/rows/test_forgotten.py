"""Rules of cloud/dataset/rows/forgotten.py: what stays of a forgotten photo, and what a barrier keeps out."""

from cloud.dataset.rows.forgotten import barrier_id, barrier_ids, forget, is_forgotten, raise_barrier
from cloud.dataset.rows.row_changes import apply_samples
from cloud.dataset.schema import SCHEMA, Row, as_record

PHOTO = Row(photo_id="a" * 32, image=b"x", width=1, height=1, received_at_ms=5, node="edge-1", device="pi-1")


def test_of_a_forgotten_photo_its_id_and_two_times_stay() -> None:
    """All other fields of the row are gone, and forgetting again changes nothing."""
    mark = forget(as_record(PHOTO) | {"revision": 3}, 9)
    assert mark is not None
    assert {name: value for name, value in mark.items() if value is not None} == {
        "photo_id": PHOTO.photo_id,
        "revision": 3,
        "received_at_ms": 5,
        "forgotten_at_ms": 9,
    }
    assert set(mark) == set(SCHEMA.names)
    assert is_forgotten(mark)
    assert forget(mark, 10) is None


def test_a_barrier_only_rises() -> None:
    """A later order with an earlier time lets nothing back in."""
    barrier = raise_barrier(barrier_id("edge-1", "pi-1"), 10, None, 1)
    assert barrier is not None
    assert raise_barrier(barrier["photo_id"], 10, barrier, 2) is None
    higher = raise_barrier(barrier["photo_id"], 11, barrier, 2)
    assert higher is not None
    assert higher["forgotten_at_ms"] == 11


def test_a_photo_passes_the_barriers_of_device_node_and_fleet() -> None:
    """What was harvested before any of the three is kept out; other cameras are unaffected."""
    assert len(set(barrier_ids("edge-1", "pi-1"))) == 3
    assert barrier_ids("edge-1", "pi-1")[1:] == barrier_ids("edge-1", "pi-2")[1:]
    for camera in (("edge-1", "pi-1"), ("edge-1", None), (None, None), ("edge-2", None)):
        key = barrier_id(*camera)
        existing = {key: raise_barrier(key, 10, None, 1) or {}}
        outcomes = [
            apply_samples({PHOTO.photo_id: PHOTO}, existing, {PHOTO.photo_id: at_ms})[1][PHOTO.photo_id]
            for at_ms in (9, 10)
        ]
        assert outcomes == ["stored" if camera == ("edge-2", None) else "forgotten", "stored"]
