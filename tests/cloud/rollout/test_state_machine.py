from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from bus.metrics import Counters
from bus.mqtt.presence import Presence
from cloud.evaluation.audit_stats import Audits
from cloud.rollout.canary_analysis import Rules
from cloud.rollout.state_machine import Decision, Rollout, Seen, Step, apply, decide, orders
from schemas.messages import CanaryReport, Release, ServedModel, Status, VersionStats
from tests.cloud.judging import audit

STEPS = [Step("shadow", photos=30), Step("canary", 0.1, 30), Step("canary", 0.5, 30), Step("all")]
RULES = Rules(stage_s=60, watch_s=60, patience_s=600)
FOREVER_S = 10_000


def release(version: int) -> Release:
    return Release(
        node="edge-1",
        model="pets",
        version=version,
        url=f"file:///{version}.tar",
        sha256="0" * 64,
        size_bytes=1,
        classes=["cat", "dog"],
        released_at_ms=1,
    )


def rollout(*groups: list[str], **changes: object) -> Rollout:
    facts = {
        "champion": release(1),
        "challenger": release(2),
        "groups": list(groups) or [["edge-1"]],
        "steps": STEPS,
        "rules": RULES,
        "since_ms": 1000,
    }
    return Rollout(**(facts | changes))


def says(node: str, state: str = "online", **facts: object) -> Status:
    status = Presence(node, "edge").status(Counters(), offline="gone" if state == "offline" else None)
    return structs.replace(status, **facts)


def trying(
    present: Rollout, node: str = "edge-1", photos: int = 100, *, bad: bool = False, **changes: object
) -> Status:
    """Return what a node says that is at the present step."""
    facts = {
        "stage": present.present.stage,
        "champion": VersionStats(version=1, answered=photos, p95_ms=10.0),
        "challenger": VersionStats(version=2, answered=photos, p95_ms=10.0),
        "compared": photos,
        "disagreed": photos if bad else 0,
        "since_ms": present.since_ms,
    }
    return says(node, canary=CanaryReport(**(facts | changes)))


def serving(node: str, version: int = 2, **did: object) -> Status:
    model = ServedModel(name="pets", version=version, state="available")
    return says(node, model=model, serving=VersionStats(version=version, **did))


def decided(present: Rollout, *statuses: Status, at_s: float = 100, **seen: Seen) -> Decision:
    said = {status.node: Seen(status) for status in statuses} | {
        name.replace("_", "-"): one for name, one in seen.items()
    }
    return decide(present, said, Audits(), present.since_ms + int(at_s * 1000))


def test_a_rollout_goes_through_its_stages_group_by_group():
    """Shadow, each canary and all in the first group, then the same in the next, and it is finished."""
    present, places = rollout(["edge-1", "edge-2"], ["edge-3"]), []
    while present.phase == "running":
        places.append((present.group, present.step))
        step = present.present
        say = serving if step.stage == "all" else lambda node, present=present: trying(present, node)
        decision = decided(present, *map(say, present.members))
        present = apply(present, decision, present.since_ms + 100_000)
    assert places == [(group, step) for group in (0, 1) for step in range(4)]
    assert present.phase == "finished"
    assert {node: order.release.version for node, order in orders(present).items()} == {
        "edge-1": 2,
        "edge-2": 2,
        "edge-3": 2,
    }


WAITS = [
    ((), 100, "for edge-1"),
    ((says("edge-1"),), 100, "for edge-1"),
    ((trying(rollout(), photos=29),), FOREVER_S, "until more than 29 photos"),
    ((trying(rollout()),), 59, "until the stage has lasted 60 s"),
    ((trying(rollout(), stage="canary"),), 100, "for edge-1"),
    ((trying(rollout(), since_ms=999),), 100, "for edge-1"),
    ((trying(rollout(), champion=VersionStats(version=7)),), 100, "for edge-1"),
    ((structs.replace(trying(rollout()), state="offline"),), 100, "for edge-1"),
    ((), FOREVER_S, "for any of edge-1"),
]


@pytest.mark.parametrize(("statuses", "at_s", "why"), WAITS)
def test_a_stage_lasts_until_it_has_shown_enough(statuses, at_s, why):
    """Node, photos and time; what another stage, rollout or versions said is no word of this one."""
    decision = decided(rollout(), *statuses, at_s=at_s)
    assert decision.action == "wait"
    assert why in decision.reason


def test_a_node_that_is_away_is_waited_for_and_then_not():
    """It gets the retained release when it is back; the others go on meanwhile."""
    present = rollout(["edge-1", "edge-2"])
    here = trying(present, "edge-1")
    assert decided(present, here, at_s=599).reason == "for edge-2"
    assert decided(present, here, at_s=601).action == "advance"
    restarted = decide(present, {"edge-1": Seen(here)}, Audits(), 9_000_000, listening_since_ms=8_990_000)
    assert restarted.reason == "for edge-2"
    last = structs.replace(present, step=3)
    assert decided(last, serving("edge-1"), says("edge-2"), at_s=601).action == "finish"
    assert "edge-2" in orders(last)


def test_a_group_that_is_away_takes_it_on_the_word_of_those_before():
    """Only the first group has to be there: nothing goes out that nobody tried."""
    second = rollout(["edge-1"], ["edge-2"], group=1)
    assert decided(second, at_s=601).action == "skip"
    skipped = apply(second, decided(second, at_s=601), 1_000_000)
    assert (skipped.group, skipped.present.stage) == (1, "all")
    assert decided(rollout(), at_s=FOREVER_S).action == "wait"


def test_a_node_without_the_champion_sits_out_and_gets_it_at_the_end():
    """Until then nothing is sent to it; where all of the first group refuse, the version goes back."""
    present = rollout(["edge-1", "edge-2"])
    seen = {"edge_2": Seen(says("edge-2"), refusal="expected version 1 in service, got 5")}
    decision = decided(present, trying(present), **seen)
    assert (decision.action, decision.facts) == ("pass-over", {"node": "edge-2"})
    passed = apply(present, decision, 5000)
    assert decided(passed, trying(passed), **seen).action == "advance"
    assert set(orders(passed)) == {"edge-1"}
    later = structs.replace(passed, groups=[["edge-1", "edge-2"], ["edge-3"]], group=1)
    assert set(orders(later)) == {"edge-1", "edge-3"}
    assert set(orders(structs.replace(passed, phase="finished"))) == {"edge-1", "edge-2"}
    assert set(orders(structs.replace(passed, phase="returned"))) == {"edge-1"}, "nothing was changed there"
    nobody = structs.replace(present, passed_over=["edge-1", "edge-2"])
    assert decided(nobody).action == "return"


@pytest.mark.parametrize(("groups", "end"), [([["edge-1"], ["edge-2"]], "advance"), ([["edge-1"]], "finish")])
def test_who_has_it_already_is_no_reason_against_it(groups, end):
    """A first group that was given it by hand refuses to try it; the next one does, or it is over at once."""
    present, places = rollout(*groups), []
    seen = {"edge_1": Seen(serving("edge-1"), refusal="expected version 1 in service, got 2")}
    for _ in range(3):
        decision = decided(present, **seen, at_s=1)
        places.append(decision.action)
        present = apply(present, decision, present.since_ms + 1000)
    assert places == ["pass-over", "skip", end]
    if end == "advance":
        assert (set(orders(present)), present.present.stage) == ({"edge-2"}, "shadow")


def test_what_goes_wrong_anywhere_sends_it_back_from_everywhere():
    """A failure in a group that is done, a bad trial or bad audits: each node that heard of it goes back."""
    present = rollout(["edge-1"], ["edge-2"], ["edge-3"], group=1)
    failed = decided(present, edge_1=Seen(serving("edge-1"), failure="no memory"))
    assert (failed.action, failed.reason) == ("return", "edge-1 cannot serve it: no memory")
    bad = decided(present, trying(present, "edge-2", bad=True))
    assert bad.action == "return"
    audited = decide(present, {}, Audits(audit(100, 50), audit(100, 99)), 2000)
    assert audited.action == "return"
    back = apply(present, bad, 5000)
    assert (back.phase, back.reason) == ("returned", bad.reason)
    told = {node: (order.release.version, order.stage) for node, order in orders(back).items()}
    assert told == {"edge-1": (1, "all"), "edge-2": (1, "all")}
    assert decide(back, {}, Audits(), 9_000_000).action == "wait"


def test_a_version_is_watched_after_the_last_step():
    """So long as the rules say, also by a controller that was started meanwhile; then it is finished."""
    last = rollout(["edge-1"], ["edge-2"], group=1, step=3, rules=structs.replace(RULES, watch_s=3600))
    both = {node: Seen(serving(node, answered=500)) for node in NODES[:2]}
    began_ms = last.since_ms
    again = msgspec.json.decode(msgspec.json.encode(last), type=Rollout)
    waits = decide(again, both, Audits(), began_ms + 3_599_000, listening_since_ms=began_ms + 3_000_000)
    assert (waits.action, waits.reason) == ("wait", "until it has been watched for 3600 s")
    assert decide(again, both, Audits(), began_ms + 3_600_000).action == "finish"
    first = structs.replace(last, group=0)
    assert decided(first, serving("edge-1")).action == "advance", "the next group is watched too"


WORSE = [
    ({"answered": 300, "failed": 30}, Audits(), "failed 30 of 330 calls (9.1%), the champion 1.0%"),
    ({"answered": 300, "p95_ms": 90.0}, Audits(), "on edge-1 its p95 is 90 ms, the champion's 10 ms"),
    ({"answered": 300}, Audits(audit(8, 1), audit(100, 95)), "audits find 1 of 8 answers right"),
]


@pytest.mark.parametrize(("did", "audits", "why"), WORSE)
def test_what_turns_bad_when_all_have_it_goes_back(did, audits, why):
    """Held against what the champion did there on trial, which the file keeps; on any node that serves it."""
    canary = rollout(["edge-1"], ["edge-2"], step=2)
    champion = VersionStats(version=1, answered=99, failed=1, p95_ms=10.0)
    tried = apply(canary, decided(canary, trying(canary, champion=champion)), 200_000)
    assert (tried.present.stage, tried.usual) == ("all", {"edge-1": champion})
    kept = msgspec.json.decode(msgspec.json.encode(tried), type=Rollout)
    for group, step in ((0, 3), (1, 1), (1, 3)):
        later = structs.replace(kept, group=group, step=step)
        seen = {"edge-1": Seen(serving("edge-1", **did)), "edge-2": Seen(serving("edge-2", 1, failed=99))}
        decision = decide(later, seen, audits, later.since_ms + 10_000)
        assert (decision.action, why in decision.reason) == ("return", True), decision
        fine = {"edge-1": Seen(serving("edge-1", answered=300, failed=3, p95_ms=12.0))}
        assert decide(later, fine, Audits(), later.since_ms + 10_000).action != "return"


@dataclass
class Fleet:
    """Nodes that do what they are told, as far as they are there; the worst of worlds for a controller."""

    present: Rollout
    told: dict[str, tuple[str, int]] = field(default_factory=dict)

    def obey(self, online: set[str], *, bad: bool) -> dict[str, Seen]:
        """Return what the nodes say after the orders of now; who is away says nothing."""
        seen = {}
        for node, order in orders(self.present).items():
            if node not in online:
                continue
            self.told[node] = (order.stage, order.release.version)
            tries = order.stage != "all"
            say = trying(self.present, node, bad=bad) if tries else serving(node, order.release.version)
            seen[node] = Seen(say)
        return seen


NODES = ["edge-1", "edge-2", "edge-3", "edge-4"]
moments = st.lists(
    st.tuples(st.sets(st.sampled_from(NODES)), st.floats(0, 700), st.booleans(), st.booleans()),
    min_size=1,
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(moments=moments, split=st.integers(1, 3))
def test_whatever_happens_nobody_is_served_what_was_not_tried(moments, split):
    """Nodes come and go, versions turn bad, controllers are killed: no stage is skipped, an end is one.

    A bad version is returned at once; only groups after the first may take it untried.
    """
    fleet = Fleet(rollout(NODES[:split], NODES[split:]))
    now_ms = fleet.present.since_ms
    for online, passed_s, bad, killed in moments:
        before = fleet.present
        if killed:
            fleet.present = msgspec.json.decode(msgspec.json.encode(before), type=Rollout)
            assert fleet.present == before
        seen = fleet.obey(online, bad=bad)
        now_ms += int(passed_s * 1000)
        decision = decide(before, seen, Audits(), now_ms)
        after = fleet.present = apply(before, decision, now_ms)
        on_trial = before.present.stage != "all" and set(before.members) & online
        if before.phase != "running":
            assert after == before
            continue
        assert (after.phase == "returned") == bool(bad and on_trial)
        assert (after.group, after.step) == (before.group, before.step) or after.since_ms > before.since_ms
        if before.group == 0 and after.phase == "running":
            assert after.step in (before.step, before.step + 1, 0)
            assert after.group == 0 or before.step == len(STEPS) - 1
        if after.phase == "finished":
            assert before.present.stage == "all"
            assert before.group == 1
    assert all(version == 2 or fleet.present.phase == "returned" for _, version in fleet.told.values())
