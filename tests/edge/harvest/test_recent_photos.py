"""Photos that were not harvested are kept for a label that follows, within bounds."""

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.harvest.recent_photos import AnsweredPhoto, RecentPhotos
from edge.serving.prediction import Prediction
from schemas.messages import Photo
from tests.nodes import NODE, photo_id

SAID = Prediction("pets", 1, {"cat": 0.5, "dog": 0.5}, b"")


def answered(number: int, device: str = "pi-1", size_bytes: int = 500) -> AnsweredPhoto:
    photo = Photo(photo_id=photo_id(number), node=NODE, device=device, image=bytes(size_bytes))
    return AnsweredPhoto(photo, SAID)


def test_what_is_kept_comes_back_as_it_was():
    """A device's own photo is found until it is forgotten; another's of the same id is another."""
    recent = RecentPhotos(10_000)
    recent.keep(answered(1))
    recent.keep(answered(1, "pi-2", 7))
    assert recent.find("pi-1", photo_id(1)) == answered(1)
    assert recent.find("pi-2", photo_id(1)) == answered(1, "pi-2", 7)
    recent.forget("pi-1", photo_id(1))
    assert recent.find("pi-1", photo_id(1)) is None


def test_the_oldest_make_room():
    """The newest stay, and what alone is too large does not cost the others their place."""
    recent = RecentPhotos(3 * answered(0).size_bytes)
    for number in range(5):
        recent.keep(answered(number))
    recent.keep(answered(9, size_bytes=20_000))
    found = [number for number in range(10) if recent.find("pi-1", photo_id(number)) is not None]
    assert found == [2, 3, 4]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3000), st.booleans()), max_size=50))
@settings(deadline=None)
def test_never_more_bytes_than_allowed(script):
    """Whatever is kept, kept again and forgotten, the bytes are counted right and within bounds."""
    recent = RecentPhotos(5000)
    for number, size_bytes, forgets in script:
        if forgets:
            recent.forget("pi-1", photo_id(number))
        else:
            recent.keep(answered(number, size_bytes=size_bytes))
        assert recent._bytes == sum(one.size_bytes for one in recent._answered.values()) <= 5000


def test_small_photos_count_with_all_that_is_kept_of_them():
    """Memory is bounded where images are tiny and what the model said of them is not."""
    large = Prediction("pets", 1, {f"class-{number}": 0.001 for number in range(1000)}, bytes(5120))
    assert AnsweredPhoto(answered(1).photo, large).size_bytes > 100_000
