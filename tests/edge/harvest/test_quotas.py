"""Caps and quotas hold, whatever comes when, and a credit is given once."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.harvest.history import HarvestedSample
from edge.harvest.quotas import Budget
from schemas.messages import Caps, HarvestRules
from tests.nodes import photo_id

caps = st.builds(
    Caps,
    per_minute=st.integers(0, 4),
    per_hour=st.integers(0, 6),
    per_day=st.integers(0, 8),
    bytes_per_minute=st.integers(0, 400),
    bytes_per_hour=st.integers(0, 600),
    bytes_per_day=st.integers(0, 800),
)
rules_of_any_kind = st.builds(
    HarvestRules,
    caps=caps,
    quota_per_day=st.integers(0, 4),
    quotas=st.dictionaries(st.sampled_from(["cat", "dog"]), st.integers(0, 3)),
)
moments = st.one_of(
    st.floats(0, 200),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([59.999, 60.0, 3600.0]),
)
samples = st.builds(
    HarvestedSample,
    photo_id=st.integers(0, 9).map(photo_id),
    device=st.just("pi-1"),
    view=st.just(0),
    label=st.sampled_from(["cat", "dog", "fox"]),
    lane=st.sampled_from(["auto", "hard", "audit", "feedback"]),
    size_bytes=st.integers(0, 200),
    at=moments,
)


@given(rules=rules_of_any_kind, arrivals=st.lists(samples, max_size=40))
@settings(deadline=None)
def test_caps_and_quotas_hold_under_any_pattern_of_arrivals(rules, arrivals):
    """No window of a minute, an hour or a day holds more than its cap, no class of a lane its quota."""
    spent, taken = Budget(), list[HarvestedSample]()
    for one in sorted(arrivals, key=lambda sample: sample.at):
        refused = spent.refusal(one.lane, one.label, one.size_bytes, rules, one.at)
        if refused is None:
            spent.spend(one)
            taken.append(one)
        hold(rules, taken, one.at)
        day = [other for other in taken if one.at - other.at < 86_400]
        same = [other for other in day if (other.lane, other.label) == (one.lane, one.label)]
        full = len(same) >= rules.quotas.get(one.label, rules.quota_per_day)
        if refused == "quota":
            assert full
            assert one.lane in ("auto", "hard")


def hold(rules: HarvestRules, taken: list[HarvestedSample], now: float) -> None:
    """Assert that what was taken is within caps and quotas."""
    limits = rules.caps
    for length_s, count, total_bytes in (
        (60, limits.per_minute, limits.bytes_per_minute),
        (3600, limits.per_hour, limits.bytes_per_hour),
        (86_400, limits.per_day, limits.bytes_per_day),
    ):
        window = [sample for sample in taken if 0 <= now - sample.at < length_s]
        assert len(window) <= count
        assert sum(sample.size_bytes for sample in window) <= total_bytes
    day = (sample for sample in taken if 0 <= now - sample.at < 86_400)
    for (lane, label), count in Counter((sample.lane, sample.label) for sample in day).items():
        assert lane not in ("auto", "hard") or count <= rules.quotas.get(label, rules.quota_per_day)


def sample(
    number: int, at: float, size_bytes: int = 100, label: str = "cat", lane: str = "auto"
) -> HarvestedSample:
    return HarvestedSample(photo_id(number), "pi-1", 0, label, lane, size_bytes, at)


def test_a_cap_is_named_and_frees_with_time():
    """The refusal says which cap it was, and when the window has passed there is room again."""
    spent, rules = Budget(), HarvestRules(caps=Caps(per_minute=2, bytes_per_hour=250))
    spent.spend(sample(1, 0.0))
    assert spent.refusal("auto", "cat", 100, rules, 1.0) is None
    spent.spend(sample(2, 1.0))
    assert spent.refusal("auto", "cat", 10, rules, 59.0) == "cap-per-minute"
    assert spent.refusal("auto", "cat", 10, rules, 60.0) is None
    assert spent.refusal("auto", "cat", 100, rules, 3599.0) == "cap-bytes-per-hour"
    assert spent.refusal("auto", "cat", 100, rules, 3600.0) is None


def test_a_quota_is_of_one_class_in_one_lane():
    """It leaves other classes and lanes alone, a class may have its own, and a day later it is free."""
    spent, rules = Budget(), HarvestRules(quota_per_day=1, quotas={"dog": 2})
    spent.spend(sample(1, 0.0))
    spent.spend(sample(2, 0.0, label="dog"))
    assert spent.refusal("auto", "cat", 1, rules, 1.0) == "quota"
    assert spent.refusal("hard", "cat", 1, rules, 1.0) is None
    assert spent.refusal("auto", "dog", 1, rules, 1.0) is None
    for lane in ("audit", "feedback"):
        spent.spend(sample(3, 0.0, lane=lane))
        assert spent.refusal(lane, "cat", 1, rules, 1.0) is None
    assert spent.refusal("auto", "cat", 1, rules, 86_400.0) is None


def test_a_credit_is_given_once():
    """What the cloud had already is given back to all windows and its quota; asked again, nothing is."""
    spent, rules = Budget(), HarvestRules(quota_per_day=2, caps=Caps(bytes_per_day=250))
    for number in (1, 2):
        spent.spend(sample(number, 0.0))
    for _ in range(3):
        spent.refund(photo_id(1))
        spent.refund(photo_id(9))
    assert spent.refusal("auto", "cat", 150, rules, 1.0) is None
    assert spent.refusal("auto", "cat", 151, rules, 1.0) == "cap-bytes-per-day"
    spent.spend(sample(3, 1.0))
    assert spent.refusal("auto", "cat", 0, rules, 1.0) == "quota"


@given(arrivals=st.lists(samples | st.integers(0, 9).map(photo_id), max_size=40))
@settings(deadline=None)
def test_credits_never_give_more_than_was_spent(arrivals):
    """Whatever is credited when, also after a window moved past it: each window sums up what is in it."""
    spent = Budget()
    for number, one in enumerate(arrivals):
        if isinstance(one, str):
            spent.refund(one)
        else:
            spent.spend(sample(int(one.photo_id, 16), number * 20.0, one.size_bytes, one.label, one.lane))
        spent.refusal("auto", "cat", 0, HarvestRules(), number * 20.0)
        for window in spent._windows.values():
            assert window.total_bytes == sum(kept.size_bytes for kept in window.samples)
        assert min(spent._by_class.values(), default=1) > 0
    spent.refusal("auto", "cat", 0, HarvestRules(), 90_000.0)
    assert not any(window.samples or window.total_bytes for window in spent._windows.values())
    assert not spent._by_class
    assert not spent._by_id


def test_a_cap_that_is_used_up_leaves_no_room():
    """To the last sample or the last byte, and from the start where nothing is allowed."""
    spent, two = Budget(), Caps(per_hour=2, bytes_per_day=300)
    assert spent.full(Caps(bytes_per_minute=0), 0.0) == "cap-bytes-per-minute"
    for number, (size_bytes, full) in enumerate([(200, None), (100, "cap-per-hour")]):
        spent.spend(HarvestedSample(photo_id(number), "pi-1", 0, "cat", "auto", size_bytes, 0.0))
        assert spent.full(two, 0.0) == full
    assert spent.full(two, 3600.0) == "cap-bytes-per-day"
    assert spent.full(two, 86_400.0) is None
