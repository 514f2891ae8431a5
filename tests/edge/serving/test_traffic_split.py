from hypothesis import given, settings
from hypothesis import strategies as st

from edge.serving.traffic_split import CanaryPlan, TrafficSplit

DEVICES = [f"pi-{number}" for number in range(2000)]
NAMES = st.from_regex(r"[a-z0-9]{1,20}", fullmatch=True)


def plan(share: float, *, stage: str = "canary", challenger: int = 2) -> CanaryPlan:
    return CanaryPlan(stage, share, champion=1, challenger=challenger, since_ms=0)


def canaries(share: float, challenger: int = 2) -> set[str]:
    return {device for device in DEVICES if plan(share, challenger=challenger).includes(device)}


@settings(deadline=None)
@given(device=NAMES, one=st.floats(0, 1), other=st.floats(0, 1), version=st.integers(1, 2**53))
def test_a_larger_share_only_adds_devices(device, one, other, version):
    """A canary device stays one while the share grows; 1 is every device; 0 and shadow have no device."""
    small, large = (plan(share, challenger=version) for share in sorted((one, other)))
    assert small.includes(device) <= large.includes(device)
    assert plan(1.0, challenger=version).includes(device)
    assert not plan(0.0, challenger=version).includes(device)
    assert not plan(1.0, challenger=version, stage="shadow").includes(device)


def test_share_of_devices_is_independent_between_rollouts():
    """Of 2000 devices about 30 % are chosen, and for another version independently of the first."""
    one, other = canaries(0.3), canaries(0.3, challenger=3)
    assert 500 < len(one) < 700
    assert 100 < len(one & other) < 260


def test_the_champion_answers_until_the_challenger_is_ready():
    """Preparing, paused and ended, a split has no challenger for any device and nothing to compare."""
    preparing = TrafficSplit.preparing(plan(1.0))
    ready = preparing.with_challenger(ready=True)
    assert (ready.pinned, ready.challenger_for("pi-1"), ready.counterpart(1), ready.counterpart(2)) == (
        1,
        2,
        2,
        1,
    )
    for split in (preparing, ready.with_challenger(ready=False), ready.without_challenger()):
        assert split.pinned == 1
        assert split.challenger_for("pi-1") is None
        assert split.counterpart(1) is None
    assert ready.counterpart(7) is None
    assert ready.without_challenger() == TrafficSplit(pinned=1)


def test_following_a_plan_keeps_the_challenger_ready():
    """A larger share of the same two versions takes effect without loading anything."""
    ready = TrafficSplit.preparing(plan(0.0)).with_challenger(ready=True)
    assert ready.challenger_for("pi-1") is None
    assert ready.follow(plan(1.0)).challenger_for("pi-1") == 2
