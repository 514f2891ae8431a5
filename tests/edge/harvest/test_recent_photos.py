"""Photos that were not harvested are kept for a label, within bounds."""

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.harvest.recent_photos import AnsweredPhoto, RecentPhotos
from edge.serving.prediction import Prediction
from schemas.messages import Photo
from tests.nodes import NODE, photo_id

PREDICTION = Prediction("pets", 1, {"cat": 0.5, "dog": 0.5}, b"")


def answered(number: int, device: str = "pi-1", size_bytes: int = 500) -> AnsweredPhoto:
    photo = Photo(photo_id=photo_id(number), node=NODE, device=device, image=bytes(size_bytes))
    return AnsweredPhoto(photo, PREDICTION)


def test_a_photo_is_found_by_device_and_id_until_removed():
    """Photos of two devices with the same id are kept apart."""
    recent = RecentPhotos(10_000)
    recent.add(answered(1))
    recent.add(answered(1, "pi-2", 7))
    assert recent.find("pi-1", photo_id(1)) == answered(1)
    assert recent.find("pi-2", photo_id(1)) == answered(1, "pi-2", 7)
    recent.remove("pi-1", photo_id(1))
    assert recent.find("pi-1", photo_id(1)) is None


def test_the_oldest_are_dropped_first():
    """A photo that exceeds the limit alone is not added and drops no other."""
    recent = RecentPhotos(3 * answered(0).size_bytes)
    for number in range(5):
        recent.add(answered(number))
    recent.add(answered(9, size_bytes=20_000))
    found = [number for number in range(10) if recent.find("pi-1", photo_id(number)) is not None]
    assert found == [2, 3, 4]


def test_a_device_that_sends_much_drops_its_own():
    """Others keep theirs, however much it sends; among themselves they share the room."""
    recent = RecentPhotos(6 * answered(0).size_bytes)
    for number in range(2):
        recent.add(answered(number, "calm"))
    for number in range(100):
        recent.add(answered(number, "busy"))
    assert all(recent.find("calm", photo_id(number)) for number in range(2))
    assert [number for number in range(100) if recent.find("busy", photo_id(number))] == [96, 97, 98, 99]
    recent.add(answered(0, "new"))
    assert (recent.find("new", photo_id(0)), recent.find("busy", photo_id(96))) == (answered(0, "new"), None)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3000), st.booleans()), max_size=50))
@settings(deadline=None)
def test_bytes_are_counted_and_bounded(script):
    """After any sequence of adding, replacing and removing, the count is right and within the limit."""
    recent = RecentPhotos(5000)
    for number, size_bytes, removes in script:
        if removes:
            recent.remove("pi-1", photo_id(number))
        else:
            recent.add(answered(number, size_bytes=size_bytes))
        kept = [recent.find("pi-1", photo_id(number)) for number in range(6)]
        assert recent.size_bytes == sum(one.size_bytes for one in kept if one is not None) <= 5000


def test_the_prediction_counts_too():
    """Scores and embedding of a small photo can be larger than its image."""
    large = Prediction("pets", 1, {f"class-{number}": 0.001 for number in range(1000)}, bytes(5120))
    assert AnsweredPhoto(answered(1).photo, large).size_bytes > 100_000
