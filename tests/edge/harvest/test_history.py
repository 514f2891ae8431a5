"""The history of harvested samples survives restarts and jumps of the wall clock."""

import sqlite3
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from bus.outbox.sqlite import migrate
from edge.harvest import history
from edge.harvest.history import MAX_SAMPLES, HarvestedSample
from edge.harvest.lanes import drawn_for_audit
from edge.harvest.selector import Selector
from edge.serving.prediction import Prediction
from schemas.lanes import AUTO
from schemas.messages import Caps, HarvestRules
from tests.edge.harvest.test_quotas import assert_within_limits
from tests.nodes import photo_id

RULES = HarvestRules(
    audit_share=0.2,
    near_duplicate_s=100,
    near_duplicate_bits=2,
    quota_per_day=3,
    caps=Caps(per_minute=3, per_hour=5, per_day=8, bytes_per_hour=400),
)
BOOT_S = 5000.0


def fresh() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    migrate(connection, {"harvested": history.MIGRATIONS})
    return connection


@dataclass
class Edge:
    """A selector with its database and clocks; the wall clock may jump."""

    disk: sqlite3.Connection = field(default_factory=fresh)
    selector: Selector = field(default_factory=lambda: Selector(RULES))
    true_s: float = 1e6
    started_s: float = 0.0
    clock_error_s: float = 0.0
    harvested: list[HarvestedSample] = field(default_factory=list)

    @property
    def now(self) -> float:
        """The monotonic clock, which starts again with each boot."""
        return BOOT_S + self.true_s - self.started_s

    @property
    def wall_ms(self) -> int:
        """The wall clock."""
        return round((self.true_s + self.clock_error_s) * 1000)

    def restart(self) -> None:
        self.started_s = self.true_s
        self.selector = Selector(RULES)
        self.selector.restore(history.load(self.disk, self.now, self.wall_ms))

    def process(self, number: int, dhash: int, confidence: float, size_bytes: int) -> str | None:
        """Harvest a photo if the rules allow; return the reason if they do not."""
        prediction = Prediction("pets", 1, {"cat": confidence, "dog": 1 - confidence}, b"")
        label = prediction.label
        lane, refused = self.selector.choose(photo_id(number), "pi-1", dhash, prediction, self.now)
        if lane is None:
            return refused
        if (refused := self.selector.refusal(lane, label, size_bytes, self.now)) is not None:
            return refused
        one = HarvestedSample(photo_id(number), "pi-1", dhash, label, lane, size_bytes, self.now)
        self.selector.record(one)
        history.write(self.disk, one, self.wall_ms)
        self.harvested.append(
            HarvestedSample(one.photo_id, one.device, dhash, one.label, lane, size_bytes, self.true_s)
        )
        return None


photos = st.tuples(
    st.sampled_from([0, 0b111, 0b111111, 2**64 - 1]),
    st.sampled_from([1.0, 0.95, 0.895, 0.6, 0.1]),
    st.integers(0, 200),
)
steps = st.lists(
    photos | st.just("restart") | st.sampled_from([1, 30, 59, 61, 99, 101, 3599, 40_000]),
    max_size=40,
)
jumps = st.floats(-1e6, 1e6).map(lambda seconds: ("jump", seconds))


@given(steps)
@settings(deadline=None)
def test_a_restart_changes_no_decision(script):
    """With restarts at any point the edge decides as without them."""
    restarted, running = Edge(), Edge()
    for number, step in enumerate(script):
        if step == "restart":
            restarted.restart()
        elif isinstance(step, tuple):
            assert restarted.process(number, *step) == running.process(number, *step)
        else:
            restarted.true_s += step
            running.true_s += step


@given(st.lists(photos | st.just("restart") | jumps | st.integers(1, 90_000), max_size=40))
@settings(deadline=None)
def test_caps_and_quotas_hold_whatever_the_wall_clock_does(script):
    """They hold within a run, and over restarts as well unless the clock was set forward."""
    edge, since = Edge(), 0
    for number, step in enumerate(script):
        if step == "restart":
            edge.restart()
        elif isinstance(step, int):
            edge.true_s += step
        elif step[0] == "jump":
            edge.clock_error_s += step[1]
            if step[1] > 0:
                since = None
        else:
            edge.process(number, *step)
        if since is None and step == "restart":
            since = len(edge.harvested)  # samples before it may have expired too early
        counted = edge.harvested[since or 0 :] if since is not None else harvested_in_this_run(edge)
        assert_within_limits(RULES, counted, edge.true_s)


def harvested_in_this_run(edge: Edge) -> list[HarvestedSample]:
    return [sample for sample in edge.harvested if sample.at >= edge.started_s]


def test_a_sample_dated_in_the_future_still_expires():
    """It is dated now once, and ages from then on, also with a restart every minute."""
    edge = Edge(clock_error_s=1e8)
    assert edge.process(0, 7, 1.0, 1) is None
    edge.clock_error_s = 0
    refusals = []
    for number in range(1, 4):
        edge.true_s += 60
        edge.restart()
        refusals.append(edge.process(number, 7, 1.0, 1))
    assert refusals == ["near-duplicate", "near-duplicate", None]


def test_a_refund_survives_a_restart():
    """A refunded sample does not count again, and its hash is still a near-duplicate."""
    edge = Edge()
    edge.harvested = [
        HarvestedSample(photo_id(number), "pi-1", 0xFF << 8 * number, "cat", AUTO, 1, edge.now)
        for number in range(3)
    ]
    for one in edge.harvested:
        history.write(edge.disk, one, edge.wall_ms)
    history.refund(edge.disk, photo_id(1))
    edge.true_s += 60
    edge.restart()
    first, second = [number for number in range(100) if not drawn_for_audit(photo_id(number), 0.2)][:2]
    assert edge.process(first, 0xFF << 8, 1.0, 1) == "near-duplicate"
    assert edge.process(first, 2**64 - 1, 1.0, 1) is None
    assert edge.process(second, 2**32 - 1, 1.0, 1) == "quota"


def test_a_refund_is_of_the_newest_sample_of_a_photo():
    """Earlier samples of the same photo, and other photos, still count."""
    disk = fresh()
    for size_bytes in (1, 2):
        history.write(disk, HarvestedSample(photo_id(1), "pi-1", 0, "cat", AUTO, size_bytes, 0.0), 1000)
    history.write(disk, HarvestedSample(photo_id(2), "pi-1", 0, "cat", AUTO, 3, 0.0), 1000)
    history.refund(disk, photo_id(1))
    assert [one.size_bytes for one in history.load(disk, 0.0, 1000) if one.refunded] == [2]


def test_the_table_is_bounded():
    """The newest samples stay."""
    disk = fresh()
    for number in range(MAX_SAMPLES + 100):
        history.write(disk, HarvestedSample(photo_id(number), "pi-1", number, "cat", AUTO, 1, 0.0), 1000)
    samples = history.load(disk, 9.0, 3000)
    assert len(samples) == MAX_SAMPLES
    newest = samples[-1]
    expected = (photo_id(MAX_SAMPLES + 99), MAX_SAMPLES + 99, 7.0)
    assert (newest.photo_id, newest.dhash, newest.at) == expected
