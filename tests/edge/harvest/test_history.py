"""What was harvested outlives a restart, whatever becomes of the clock."""

import sqlite3
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from bus.outbox.sqlite import migrate
from edge.harvest import history
from edge.harvest.history import KEPT, HarvestedSample
from edge.harvest.lanes import drawn_for_audit
from edge.harvest.selector import Selector
from edge.serving.prediction import Prediction
from schemas.messages import Caps, HarvestRules
from tests.edge.harvest.test_quotas import hold
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
    """A harvester with its disk and its clocks, of which the wall clock may jump."""

    disk: sqlite3.Connection = field(default_factory=fresh)
    harvester: Selector = field(default_factory=lambda: Selector(RULES))
    true_s: float = 1e6
    started_s: float = 0.0
    wrong_s: float = 0.0
    taken: list[HarvestedSample] = field(default_factory=list)

    @property
    def now(self) -> float:
        """The monotonic clock, which starts anew with each boot."""
        return BOOT_S + self.true_s - self.started_s

    def restart(self) -> None:
        self.started_s = self.true_s
        self.harvester = Selector(RULES)
        now_ms = round((self.true_s + self.wrong_s) * 1000)
        self.harvester.restore(history.load(self.disk, self.now, now_ms))

    def see(self, number: int, view: int, confidence: float, size_bytes: int) -> str | None:
        """Decide about a photo and harvest it if it is worth it; returns why it is not."""
        said = Prediction("pets", 1, {"cat": confidence, "dog": 1 - confidence}, b"")
        lane, refused = self.harvester.choose(photo_id(number), "pi-1", view, said, self.now)
        if lane is None:
            return refused
        if (refused := self.harvester.refusal(lane, said.label, size_bytes, self.now)) is not None:
            return refused
        one = HarvestedSample(photo_id(number), "pi-1", view, said.label, lane, size_bytes, self.now)
        self.harvester.record(one)
        history.write(self.disk, one, round((self.true_s + self.wrong_s) * 1000))
        self.taken.append(
            HarvestedSample(one.photo_id, one.device, view, one.label, lane, size_bytes, self.true_s)
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
    """With restarts anywhere the edge takes and refuses what it does without them."""
    one, other = Edge(), Edge()
    for number, step in enumerate(script):
        if step == "restart":
            one.restart()
        elif isinstance(step, tuple):
            assert one.see(number, *step) == other.see(number, *step)
        else:
            one.true_s += step
            other.true_s += step


@given(st.lists(photos | st.just("restart") | jumps | st.integers(1, 90_000), max_size=40))
@settings(deadline=None)
def test_caps_and_quotas_hold_whatever_the_wall_clock_does(script):
    """Set forward or back, they hold within a run; over restarts too while it is not set forward."""
    edge, since = Edge(), 0
    for number, step in enumerate(script):
        if step == "restart":
            edge.restart()
        elif isinstance(step, int):
            edge.true_s += step
        elif step[0] == "jump":
            edge.wrong_s += step[1]
            if step[1] > 0:
                since = None
        else:
            edge.see(number, *step)
        if since is None and step == "restart":
            since = len(edge.taken)  # what was taken before may be forgotten
        hold(RULES, edge.taken[since or 0 :] if since is not None else run_of(edge), edge.true_s)


def run_of(edge: Edge) -> list[HarvestedSample]:
    """Return what was taken since the newest start."""
    return [sample for sample in edge.taken if sample.at >= edge.started_s]


def test_a_clock_that_was_wrong_is_not_believed_for_ever():
    """Dated in the future, a sample counts as new once, and then ages: also with a restart each hour."""
    edge = Edge(wrong_s=1e8)
    assert edge.see(0, 7, 1.0, 1) is None
    edge.wrong_s = 0
    refusals = []
    for number in range(1, 4):
        edge.true_s += 60
        edge.restart()
        refusals.append(edge.see(number, 7, 1.0, 1))
    assert refusals == ["near-duplicate", "near-duplicate", None]


def test_a_credit_outlives_a_restart():
    """What was given back is not spent again, and the view is still known."""
    edge = Edge()
    edge.taken = [
        HarvestedSample(photo_id(number), "pi-1", 0xFF << 8 * number, "cat", "auto", 1, edge.now)
        for number in range(3)
    ]
    for one in edge.taken:
        history.write(edge.disk, one, round(edge.true_s * 1000))
    history.refund(edge.disk, photo_id(1))
    edge.true_s += 60
    edge.restart()
    again, other = [number for number in range(100) if not drawn_for_audit(photo_id(number), 0.2)][:2]
    assert edge.see(again, 0xFF << 8, 1.0, 1) == "near-duplicate"
    assert edge.see(again, 2**64 - 1, 1.0, 1) is None
    assert edge.see(other, 2**32 - 1, 1.0, 1) == "quota"


def test_a_credit_is_for_the_newest_sample_of_a_photo():
    """What an earlier sample of the same photo spent was spent."""
    disk = fresh()
    for size_bytes in (1, 2):
        history.write(disk, HarvestedSample(photo_id(1), "pi-1", 0, "cat", "auto", size_bytes, 0.0), 1000)
    history.write(disk, HarvestedSample(photo_id(2), "pi-1", 0, "cat", "auto", 3, 0.0), 1000)
    history.refund(disk, photo_id(1))
    assert [one.size_bytes for one in history.load(disk, 0.0, 1000) if one.refunded] == [2]


def test_the_table_is_bounded():
    """The newest samples stay."""
    disk = fresh()
    for number in range(KEPT + 100):
        history.write(disk, HarvestedSample(photo_id(number), "pi-1", number, "cat", "auto", 1, 0.0), 1000)
    samples = history.load(disk, 9.0, 3000)
    assert len(samples) == KEPT
    newest = samples[-1]
    assert (newest.photo_id, newest.view, newest.at) == (photo_id(KEPT + 99), KEPT + 99, 7.0)
