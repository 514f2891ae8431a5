"""Caps and quotas hold for any arrivals, and a refund counts once."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.harvest.history import HarvestedSample
from edge.harvest.quotas import Budget
from schemas.policy_rules import Caps, HarvestRules
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
    dhash=st.just(0),
    label=st.sampled_from(["cat", "dog", "fox"]),
    lane=st.sampled_from(["auto", "hard", "audit", "feedback"]),
    size_bytes=st.integers(0, 200),
    at=moments,
)


@given(rules=rules_of_any_kind, arrivals=st.lists(samples, max_size=40))
@settings(deadline=None)
def test_caps_and_quotas_hold_under_any_pattern_of_arrivals(rules, arrivals):
    """No sliding window exceeds its cap, and no class of a scored lane its quota."""
    budget, taken = Budget(), list[HarvestedSample]()
    for one in sorted(arrivals, key=lambda sample: sample.at):
        refused = budget.refusal(one.lane, one.label, one.size_bytes, rules, one.at)
        if refused is None:
            budget.spend(one)
            taken.append(one)
        assert_within_limits(rules, taken, one.at)
        day = [other for other in taken if one.at - other.at < 86_400]
        same = [other for other in day if (other.lane, other.label) == (one.lane, one.label)]
        full = len(same) >= rules.quotas.get(one.label, rules.quota_per_day)
        if refused == "quota":
            assert full
            assert one.lane in ("auto", "hard")


def assert_within_limits(rules: HarvestRules, taken: list[HarvestedSample], now: float) -> None:
    """Assert that harvested samples are within caps and quotas."""
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


def test_a_refusal_names_its_cap_and_ends_with_the_window():
    """The refusal is named after the cap; when the oldest sample leaves the window there is room again."""
    budget, rules = Budget(), HarvestRules(caps=Caps(per_minute=2, bytes_per_hour=250))
    budget.spend(sample(1, 0.0))
    assert budget.refusal("auto", "cat", 100, rules, 1.0) is None
    budget.spend(sample(2, 1.0))
    assert budget.refusal("auto", "cat", 10, rules, 59.0) == "cap-per-minute"
    assert budget.refusal("auto", "cat", 10, rules, 60.0) is None
    assert budget.refusal("auto", "cat", 100, rules, 3599.0) == "cap-bytes-per-hour"
    assert budget.refusal("auto", "cat", 100, rules, 3600.0) is None


def test_a_quota_is_for_one_class_in_one_lane():
    """Other classes and lanes are not affected, a class may have its own quota, and it ends after a day."""
    budget, rules = Budget(), HarvestRules(quota_per_day=1, quotas={"dog": 2})
    budget.spend(sample(1, 0.0))
    budget.spend(sample(2, 0.0, label="dog"))
    assert budget.refusal("auto", "cat", 1, rules, 1.0) == "quota"
    assert budget.refusal("hard", "cat", 1, rules, 1.0) is None
    assert budget.refusal("auto", "dog", 1, rules, 1.0) is None
    for lane in ("audit", "feedback"):
        budget.spend(sample(3, 0.0, lane=lane))
        assert budget.refusal(lane, "cat", 1, rules, 1.0) is None
    assert budget.refusal("auto", "cat", 1, rules, 86_400.0) is None


def test_a_refund_counts_once():
    """A sample leaves all windows and its quota; further refunds and unknown ids change nothing."""
    budget, rules = Budget(), HarvestRules(quota_per_day=2, caps=Caps(bytes_per_day=250))
    for number in (1, 2):
        budget.spend(sample(number, 0.0))
    for _ in range(3):
        budget.refund(photo_id(1))
        budget.refund(photo_id(9))
    assert budget.refusal("auto", "cat", 150, rules, 1.0) is None
    assert budget.refusal("auto", "cat", 151, rules, 1.0) == "cap-bytes-per-day"
    budget.spend(sample(3, 1.0))
    assert budget.refusal("auto", "cat", 0, rules, 1.0) == "quota"


@given(arrivals=st.lists(samples | st.integers(0, 9).map(photo_id), max_size=40))
@settings(deadline=None)
def test_refunds_never_exceed_what_was_spent(arrivals):
    """After any refunds, also of expired samples, each window counts exactly the samples in it."""
    budget = Budget()
    for number, one in enumerate(arrivals):
        if isinstance(one, str):
            budget.refund(one)
        else:
            budget.spend(sample(int(one.photo_id, 16), number * 20.0, one.size_bytes, one.label, one.lane))
        budget.refusal("auto", "cat", 0, HarvestRules(), number * 20.0)
        for window in budget._windows.values():
            assert window.total_bytes == sum(one.size_bytes for one in window.samples)
        assert min(budget._by_class.values(), default=1) > 0
    budget.refusal("auto", "cat", 0, HarvestRules(), 90_000.0)
    assert not any(window.samples or window.total_bytes for window in budget._windows.values())
    assert not budget._by_class
    assert not budget._by_id


def test_a_cap_is_exhausted_by_the_last_sample_or_byte():
    """A cap of 0 is exhausted from the start."""
    budget, two = Budget(), Caps(per_hour=2, bytes_per_day=300)
    assert budget.exhausted_cap(Caps(bytes_per_minute=0), 0.0) == "cap-bytes-per-minute"
    for number, (size_bytes, exhausted) in enumerate([(200, None), (100, "cap-per-hour")]):
        budget.spend(HarvestedSample(photo_id(number), "pi-1", 0, "cat", "auto", size_bytes, 0.0))
        assert budget.exhausted_cap(two, 0.0) == exhausted
    assert budget.exhausted_cap(two, 3600.0) == "cap-bytes-per-day"
    assert budget.exhausted_cap(two, 86_400.0) is None


def test_a_busy_device_leaves_others_their_share():
    """One that shows something new all the time takes no more than half a cap and its share of the rest."""
    budget, rules = Budget(), HarvestRules(caps=Caps(per_hour=40))
    for device in ("busy", "calm", "other", "idle"):
        budget.active.seen(device, 0.0)
    for number in range(100):
        one = HarvestedSample(photo_id(number), "busy", 0, "cat", "auto", 100, 1.0)
        if (refused := budget.refusal("auto", "cat", 100, rules, 1.0, device="busy")) is not None:
            break
        budget.spend(one)
    assert (refused, number) == ("device-share-per-hour", 20)
    assert budget.exhausted_cap(rules.caps, 1.0, "busy") == "device-share-per-hour"
    for number in range(100, 110):
        assert budget.refusal("auto", "cat", 100, rules, 1.0, device="calm") is None
        budget.spend(HarvestedSample(photo_id(number), "calm", 0, "cat", "auto", 100, 1.0))
    assert budget.refusal("auto", "cat", 100, rules, 1.0, device="calm") == "device-share-per-hour"
    assert budget.refusal("auto", "cat", 100, rules, 1.0, device="other") is None
    assert budget.refusal("audit", "cat", 100, rules, 1.0, device="busy") == "device-share-per-hour"
    assert budget.refusal("auto", "cat", 100, rules, 3601.0, device="busy") is None


def test_shares_hold_for_bytes():
    """A device with large photos is limited in bytes."""
    budget, rules = Budget(), HarvestRules(caps=Caps(bytes_per_day=1000))
    for device in ("busy", "calm"):
        budget.active.seen(device, 0.0)
    budget.spend(HarvestedSample(photo_id(1), "busy", 0, "cat", "auto", 450, 1.0))
    assert budget.refusal("auto", "cat", 100, rules, 1.0, device="busy") == "device-share-per-day"
    assert budget.refusal("auto", "cat", 100, rules, 1.0, device="calm") is None


def test_a_device_alone_has_the_whole_cap():
    """Also one among devices that sent nothing in the cap's period."""
    budget, rules = Budget(), HarvestRules(caps=Caps(per_minute=4))
    budget.active.seen("gone", 0.0)
    budget.active.seen("busy", 61.0)
    for number in range(4):
        assert budget.refusal("auto", "cat", 100, rules, 61.0, device="busy") is None
        budget.spend(HarvestedSample(photo_id(number), "busy", 0, "cat", "auto", 100, 61.0))
    assert budget.refusal("auto", "cat", 100, rules, 61.0, device="busy") == "cap-per-minute"


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 50)), max_size=80))
@settings(deadline=None)
def test_no_device_is_kept_out_by_the_others(arrivals):
    """A device without a sample gets one, even beside busy devices, while the caps have room."""
    budget, rules = Budget(), HarvestRules(caps=Caps(per_day=30, bytes_per_day=600))
    for number, (device, size_bytes) in enumerate(arrivals):
        budget.active.seen(device, 1.0)
        if budget.refusal("auto", "cat", size_bytes, rules, 1.0, device=device) is None:
            budget.spend(HarvestedSample(photo_id(number), device, 0, "cat", "auto", size_bytes, 1.0))
    refused = budget.refusal("auto", "cat", 1, rules, 1.0, device="new")
    assert refused is None or refused.startswith("cap-")


@given(
    rules=st.builds(HarvestRules, audits_per_day=st.integers(0, 6), audits_per_device=st.integers(0, 4)),
    arrivals=st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 200_000), st.booleans()), max_size=40),
)
def test_audits_have_quotas_of_their_own(rules, arrivals):
    """No day has more audits of the node, or of a device, than the rules allow; other lanes do not count."""
    budget, taken = Budget(), list[HarvestedSample]()
    for number, (device, at, is_audit) in enumerate(sorted(arrivals, key=lambda one: one[1])):
        lane = "audit" if is_audit else "auto"
        one = HarvestedSample(photo_id(number), device, 0, "cat", lane, 10, at)
        day = [other for other in taken if at - other.at < 86_400 and other.lane == "audit"]
        own = [other for other in day if other.device == device]
        refused = budget.refusal(lane, "cat", 10, rules, at, device=device)
        if is_audit and len(day) >= rules.audits_per_day:
            assert refused == "audit-quota"
        elif is_audit and len(own) >= rules.audits_per_device:
            assert refused == "audit-quota-per-device"
        else:
            assert refused is None
            budget.spend(one)
            taken.append(one)


def test_a_refunded_audit_leaves_its_place():
    """The cloud had it already, so that it does not count."""
    budget, rules = Budget(), HarvestRules(audits_per_day=1)
    budget.spend(HarvestedSample(photo_id(1), "a", 0, "cat", "audit", 10, 0.0))
    assert budget.refusal("audit", "cat", 10, rules, 1.0, device="b") == "audit-quota"
    budget.refund(photo_id(1))
    assert budget.refusal("audit", "cat", 10, rules, 1.0, device="b") is None
