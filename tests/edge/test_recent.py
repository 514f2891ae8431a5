"""Photos that were not harvested are kept for a label that follows, within bounds."""

from hypothesis import given
from hypothesis import strategies as st

from edge.recent import Recent
from schemas.codec import encode
from schemas.messages import Sample
from schemas.topics import SAMPLE
from tests.nodes import NODE, photo_id


def sample(number: int, device: str = "pi-1", size_bytes: int = 500) -> Sample:
    return Sample(
        photo_id=photo_id(number),
        node=NODE,
        device=device,
        image=b"\xff\xd8" + bytes(size_bytes),
        width=4,
        height=3,
        dhash=f"{number:016x}",
        lane="feedback",
        label="cat",
        confidence=0.5,
        scores={"cat": 0.5, "dog": 0.5},
        model="pets",
        model_version=1,
        harvested_at_ms=1,
    )


def test_what_is_kept_comes_back_as_it_was():
    """A device's own photo is found until it is forgotten; another's of the same id is another."""
    recent = Recent(10_000)
    recent.keep(sample(1))
    recent.keep(sample(1, "pi-2", 7))
    assert recent.find(NODE, "pi-1", photo_id(1)) == sample(1)
    assert recent.find(NODE, "pi-2", photo_id(1)) == sample(1, "pi-2", 7)
    recent.forget("pi-1", photo_id(1))
    assert recent.find(NODE, "pi-1", photo_id(1)) is None


def test_the_oldest_make_room():
    """The newest stay, and what alone is too large does not."""
    one = len(encode(SAMPLE, sample(1)))
    recent = Recent(3 * one)
    for number in range(5):
        recent.keep(sample(number))
    found = [recent.find(NODE, "pi-1", photo_id(number)) is not None for number in range(5)]
    assert found == [False, False, True, True, True]
    recent.keep(sample(9, size_bytes=5 * one))
    assert recent.find(NODE, "pi-1", photo_id(9)) is None


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3000), st.booleans()), max_size=50))
def test_never_more_bytes_than_allowed(script):
    """Whatever is kept, kept again and forgotten, the bytes are counted right and within bounds."""
    recent = Recent(5000)
    for number, size_bytes, forgets in script:
        if forgets:
            recent.forget("pi-1", photo_id(number))
        else:
            recent.keep(sample(number, size_bytes=size_bytes))
        assert recent._bytes == sum(map(len, recent._payloads.values())) <= 5000
