import io
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from edge.harvest import Harvester, Spent, Views, dhash, distance, lane, shrink
from edge.results import scored
from schemas.messages import Caps, HarvestRules
from tests.edge.test_results import predictions
from tests.nodes import photo

RULES = HarvestRules(auto_confidence=0.9, hard_confidence=0.75)
REFUSALS = {"near-duplicate", "between-thresholds"}


@pytest.mark.parametrize(
    ("confidence", "decision"),
    [
        (0.0, ("hard", None)),
        (0.7499, ("hard", None)),
        (0.75, (None, "between-thresholds")),
        (0.8999, (None, "between-thresholds")),
        (0.9, ("auto", None)),
        (1.0, ("auto", None)),
    ],
)
def test_confidence_chooses_the_lane(confidence, decision):
    """At or above the upper threshold auto, below the lower one hard, between them nothing."""
    assert lane(confidence, RULES) == decision


@given(
    scores=st.lists(
        st.one_of(st.floats(width=32), st.sampled_from([0.0, 0.5, 1.0, float("nan")])),
        min_size=2,
        max_size=4,
    ),
    auto=st.floats(0, 1),
    hard=st.floats(0, 1),
    view=st.integers(0, 2**64 - 1),
)
def test_any_scores_get_a_lane_or_a_named_refusal(scores, auto, hard, view):
    """No scores, thresholds or views raise or fall between: exactly one of lane and refusal is there."""
    said = scored("pets", predictions(scores), tuple(f"class-{n}" for n in range(len(scores))))[0]
    rules = HarvestRules(auto_confidence=auto, hard_confidence=hard)
    chosen = Harvester(rules).choose("pi-1", view, said.confidence, 0.0)
    assert (chosen.lane in ("auto", "hard")) != (chosen.refused in REFUSALS)


caps = st.builds(
    Caps,
    per_minute=st.integers(0, 4),
    per_hour=st.integers(0, 6),
    per_day=st.integers(0, 8),
    bytes_per_minute=st.integers(0, 400),
    bytes_per_hour=st.integers(0, 600),
    bytes_per_day=st.integers(0, 800),
)
moments = st.one_of(
    st.floats(0, 200),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([59.999, 60.0, 3600.0]),
)


@given(limits=caps, arrivals=st.lists(st.tuples(moments, st.integers(0, 200)), max_size=40))
@settings(deadline=None)
def test_caps_hold_under_any_pattern_of_arrivals(limits, arrivals):
    """No window of a minute, an hour or a day holds more than its cap, whatever comes when."""
    spent, taken = Spent(), []
    for now, size_bytes in sorted(arrivals):
        if spent.exceeds(size_bytes, limits, now) is None:
            spent.spend(size_bytes, now)
            taken.append((now, size_bytes))
        for length_s, count, total_bytes in (
            (60, limits.per_minute, limits.bytes_per_minute),
            (3600, limits.per_hour, limits.bytes_per_hour),
            (86_400, limits.per_day, limits.bytes_per_day),
        ):
            window = [size for at, size in taken if 0 <= now - at < length_s]
            assert len(window) <= count
            assert sum(window) <= total_bytes


def test_a_cap_is_named_and_frees_with_time():
    """The refusal says which cap it was, and when the window has passed there is room again."""
    spent, limits = Spent(), Caps(per_minute=2, bytes_per_hour=250)
    spent.spend(100, 0.0)
    assert spent.exceeds(100, limits, 1.0) is None
    spent.spend(100, 1.0)
    assert spent.exceeds(10, limits, 59.0) == "cap-per-minute"
    assert spent.exceeds(10, limits, 60.0) is None
    assert spent.exceeds(100, limits, 3599.0) == "cap-bytes-per-hour"
    assert spent.exceeds(100, limits, 3600.0) is None


def test_the_same_view_is_recognised_in_other_clothes():
    """Smaller, brighter or harder compressed, a view keeps its hash; another view has another."""
    picture = Image.open(io.BytesIO(photo(1, size=(640, 480))))
    seen = dhash(photo(1, size=(640, 480)))
    for changed in (picture.resize((200, 150)), ImageEnhance.Brightness(picture).enhance(0.8)):
        out = io.BytesIO()
        changed.save(out, "JPEG", quality=40)
        assert distance(seen, dhash(out.getvalue())) <= RULES.near_duplicate_bits
    assert distance(seen, dhash(photo(2))) > RULES.near_duplicate_bits


def test_a_view_is_near_only_on_its_device_and_for_its_time():
    """What another device saw, or what was seen too long ago, is no duplicate."""
    views, rules = Views(), HarvestRules(near_duplicate_s=100, near_duplicate_bits=1)
    views.remember("pi-1", 0b1111, 0.0)
    assert views.seen("pi-1", 0b1110, rules, 100.0)
    assert not views.seen("pi-1", 0b1100, rules, 1.0)
    assert not views.seen("pi-2", 0b1111, rules, 1.0)
    assert not views.seen("pi-1", 0b1111, rules, 100.1)


def test_the_memory_of_views_is_bounded():
    """However many devices and views come, only so many are remembered."""
    views, draw = Views(), random.Random(1)
    for number in range(3000):
        views.remember(f"pi-{number}", draw.getrandbits(64), 0.0)
        views.remember("pi-0", draw.getrandbits(64), 0.0)
    assert len(views._devices) <= 1024
    assert len(views._devices["pi-0"]) <= 512


def test_a_photo_is_shrunk_to_training_size():
    """The short side becomes 320 px and the aspect stays; what is small enough stays byte for byte."""
    large = photo(1, size=(1280, 960))
    shrunk = shrink(large)
    assert (shrunk.width, shrunk.height) == (427, 320)
    assert Image.open(io.BytesIO(shrunk.image)).size == (427, 320)
    small = photo(1, size=(500, 320), kind="PNG")
    assert shrink(small) == (small, 500, 320)
