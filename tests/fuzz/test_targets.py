import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.fuzz.seeds import images, seeds
from tests.fuzz.targets import TARGETS, run


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns about corrupted images
def test_g4_every_seed_is_read_or_refused():
    """Recorded messages and images, intact or corrupted at each segment, satisfy the rule of their target."""
    count = 0
    for seed in seeds():
        run(seed)
        count += 1
    assert count > 500


@given(data=st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.filterwarnings("ignore::UserWarning")  # as above
def test_g4_any_bytes_are_read_or_refused(data):
    """Any bytes, and any image or message with some bytes changed, satisfy the rule of their target."""
    start = data.draw(st.sampled_from(list(seeds())))
    at = data.draw(st.integers(1, len(start)))
    middle = data.draw(st.binary(max_size=16))
    run(
        bytes([data.draw(st.integers(0, len(TARGETS) - 1))])
        + start[1:at]
        + middle
        + start[at + len(middle) :]
    )


@given(payload=st.binary(max_size=200))
@example(payload=b"\xff\xd8\xff")
@example(payload=b"\x89PNG\r\n\x1a\n")
@settings(max_examples=300, deadline=None)
@pytest.mark.filterwarnings("ignore::UserWarning")  # as above
def test_g4_raw_bytes_are_read_or_refused_everywhere(payload):
    """Every target accepts any bytes."""
    for target in range(len(TARGETS)):
        run(bytes([target]) + payload)


def test_the_seed_images_are_complete():
    """There is an image of each format and mode."""
    assert len(list(images())) == 11
