"""The history of harvested samples survives restarts and jumps of the wall clock."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bus.metrics import Counters
from bus.outbox.damage import DamageLog
from bus.outbox.sqlite import Database, migrate
from edge.harvest import history
from edge.harvest.history import MAX_SAMPLES, HarvestedSample
from edge.harvest.lanes import drawn_for_audit
from edge.harvest.selector import Selector
from edge.serving.prediction import Prediction
from schemas.lanes import AUTO
from schemas.policy_rules import Caps, HarvestRules
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
    boots: int = 1

    @property
    def now(self) -> float:
        """The monotonic clock, which starts again with each boot."""
        return BOOT_S + self.true_s - self.started_s

    @property
    def wall_ms(self) -> int:
        """The wall clock."""
        return round((self.true_s + self.clock_error_s) * 1000)

    @property
    def boot(self) -> str:
        return f"boot-{self.boots}"

    def reboot(self) -> None:
        """Start the machine again, and the edge with it."""
        self.started_s = self.true_s
        self.boots += 1
        self.restart()

    def restart(self) -> None:
        """Start the edge again."""
        self.selector = Selector(RULES)
        self.selector.restore(history.load(self.disk, self.now, self.wall_ms, self.boot))

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
        history.write(self.disk, one, self.wall_ms, self.boot)
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
    photos | st.sampled_from(["restart", "reboot"]) | st.sampled_from([1, 30, 59, 61, 99, 101, 3599, 40_000]),
    max_size=40,
)
jumps = st.floats(-1e6, 1e6).map(lambda seconds: ("jump", seconds))


@given(steps)
@settings(deadline=None)
def test_a_restart_changes_no_decision(script):
    """With restarts at any point the edge decides as without them."""
    restarted, running = Edge(), Edge()
    for number, step in enumerate(script):
        if isinstance(step, str):
            getattr(restarted, step)()
        elif isinstance(step, tuple):
            assert restarted.process(number, *step) == running.process(number, *step)
        else:
            restarted.true_s += step
            running.true_s += step


@given(
    st.lists(photos | st.sampled_from(["restart", "reboot"]) | jumps | st.integers(1, 90_000), max_size=40)
)
@example([(0, 1.0, 0), (0, 0.1, 0), ("jump", 101.0), "restart", (0, 1.0, 0), ("jump", 1.0), (7, 1.0, 0)])
@example([(0, 1.0, 0), (0, 0.1, 0), ("jump", 101.0), "reboot", (0, 1.0, 0), ("jump", 1.0), (7, 1.0, 0)])
@example([(0, 1.0, 0), "reboot", ("jump", 86400.0), "restart", (0, 1.0, 0), (7, 1.0, 0), (63, 1.0, 0)])
@settings(deadline=None)
def test_caps_and_quotas_hold_whatever_the_wall_clock_does(script):
    """They hold over restarts of the edge, and over those of the machine unless its clock was set forward."""
    edge, since, jumped = Edge(), 0, False
    for number, step in enumerate(script):
        if isinstance(step, str):
            getattr(edge, step)()
            if step == "reboot" and jumped:
                since, jumped = len(edge.harvested), False  # samples before may have expired too early
        elif isinstance(step, int):
            edge.true_s += step
        elif step[0] == "jump":
            edge.clock_error_s += step[1]
            jumped = jumped or step[1] > 0
        else:
            edge.process(number, *step)
        assert_within_limits(RULES, edge.harvested[since:], edge.true_s)


def test_an_earlier_run_is_counted_though_the_clock_was_set_since():
    """A machine may begin in 1970: when its time is set, a restart of the edge forgets nothing."""
    edge = Edge(clock_error_s=-1e6)
    assert [edge.process(number, 0xFF << 8 * number, 1.0, 1) for number in range(3)] == [None] * 3
    edge.clock_error_s = 1.8e9
    edge.restart()
    assert edge.process(9, 2**64 - 1, 1.0, 1) == "quota"


def test_a_sample_dated_in_the_future_still_expires():
    """It is dated now once, and ages from then on, also with a start of the machine every minute."""
    edge = Edge(clock_error_s=1e8)
    assert edge.process(0, 7, 1.0, 1) is None
    edge.clock_error_s = 0
    refusals = []
    for number in range(1, 4):
        edge.true_s += 60
        edge.reboot()
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


def test_the_key_of_the_audits_stays(tmp_path):
    """A restart draws the same photos; another node has another key."""
    keys = []
    for name in ("one.db", "one.db", "two.db"):
        with closing(sqlite3.connect(tmp_path / name)) as connection, connection:
            migrate(connection, {"harvested": history.MIGRATIONS})
            keys.append(history.audit_key(connection))
    assert keys[0] == keys[1] != keys[2]
    assert len(keys[0]) == 32


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("view", "xyz"),
        ("view", b"\xff"),
        ("view", "-1"),
        ("view", "f" * 17),
        ("size_bytes", "many"),
    ],
)
async def test_a_damaged_row_is_set_aside(tmp_path, column, value):
    """The edge starts with the other samples, and the row is counted."""
    counters = Counters()
    tables = {"harvested": history.MIGRATIONS}
    async with Database(tmp_path / "edge.db", tables, damage=DamageLog(counters)) as database:

        def prepare(connection: sqlite3.Connection) -> None:
            for number in (1, 2):
                one = HarvestedSample(photo_id(number), "pi-1", 7, "cat", "auto", 10, 0.0)
                history.write(connection, one, 1000)
            connection.execute(f"UPDATE harvested SET {column} = ? WHERE photo_id = ?", (value, photo_id(1)))

        await database.run(prepare)
        for _ in range(2):
            loaded = await database.run(lambda connection: history.load(connection, 10.0, 2000))
            assert [one.photo_id for one in loaded] == [photo_id(2)]
    assert counters.snapshot()["database.damaged"] == 1
