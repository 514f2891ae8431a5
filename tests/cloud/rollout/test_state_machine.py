"""Rules of cloud/rollout/state_machine.py: what a rollout does next, and what its state file keeps."""

import json
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from bus.metrics import Counters
from bus.mqtt.presence import Presence
from cloud.evaluation.audit_stats import RolloutAudits
from cloud.registry.rollout_state import Rollout, Rules, Step
from cloud.rollout.state_machine import Decision, NodeState, apply, assignments, decide
from schemas.messages import CanaryReport, Release, ServedModel, Status, VersionStats
from tests.cloud.judging import audit

STEPS = [Step("shadow", photos=30), Step("canary", 0.1, 30), Step("canary", 0.5, 30), Step("all")]
RULES = Rules(stage_s=60, bake_time_s=60, node_timeout_s=600)
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
    state: Rollout, node: str = "edge-1", photos: int = 100, *, bad: bool = False, **changes: object
) -> Status:
    """Return the status of a node that is at the current step."""
    facts = {
        "stage": state.current_step.stage,
        "champion": VersionStats(version=1, answered=photos, p95_ms=10.0),
        "challenger": VersionStats(version=2, answered=photos, p95_ms=10.0),
        "compared": photos,
        "disagreed": photos if bad else 0,
        "since_ms": state.since_ms,
    }
    return says(node, canary=CanaryReport(**(facts | changes)))


def serving(node: str, version: int = 2, **did: object) -> Status:
    model = ServedModel(name="pets", version=version, state="available")
    return says(node, model=model, serving=VersionStats(version=version, **did))


def decided(state: Rollout, *statuses: Status, at_s: float = 100, **seen: NodeState) -> Decision:
    nodes = {status.node: NodeState(status) for status in statuses} | {
        name.replace("_", "-"): one for name, one in seen.items()
    }
    return decide(state, nodes, RolloutAudits(), state.since_ms + int(at_s * 1000))


def test_a_rollout_goes_through_its_stages_group_by_group():
    """Shadow, each canary and all in the first group, then the same in the next group, then finished."""
    state, places = rollout(["edge-1", "edge-2"], ["edge-3"]), []
    while state.phase == "running":
        places.append((state.group, state.step))
        step = state.current_step
        say = serving if step.stage == "all" else lambda node, state=state: trying(state, node)
        decision = decided(state, *map(say, state.active_nodes))
        state = apply(state, decision, state.since_ms + 100_000)
    assert places == [(group, step) for group in (0, 1) for step in range(4)]
    assert state.phase == "finished"
    assert {node: assignment.release.version for node, assignment in assignments(state).items()} == {
        "edge-1": 2,
        "edge-2": 2,
        "edge-3": 2,
    }


def test_a_paused_rollout_goes_nowhere_but_back():
    """No stage, bake time or time-out ends; a bad version is rolled back anyway."""
    state = rollout(paused=True)
    assert decided(state, trying(state), at_s=FOREVER_S).action == "wait"
    assert decided(structs.replace(state, step=3), serving("edge-1"), at_s=FOREVER_S).action == "wait"
    assert decided(state, trying(state, bad=True)).action == "roll-back"
    resumed = apply(state, Decision("resume", "by maria"), 5000)
    assert decided(resumed, trying(resumed)).action == "advance"


def test_paused_time_does_not_count():
    """Neither for a stage nor for the watch nor for the time-out of a node, over several pauses."""
    state = rollout()
    for paused_s, resumed_s in ((10, 1000), (1020, 5000)):
        state = apply(state, Decision("pause", "by maria"), state.since_ms + paused_s * 1000)
        again = apply(state, Decision("pause", "by maria"), state.since_ms + paused_s * 1000 + 1)
        assert again == state
        state = apply(state, Decision("resume", "by maria"), state.since_ms + resumed_s * 1000)
    paused_s = 990 + 3980
    for step, status in ((0, trying(state)), (3, serving("edge-1"))):
        at = structs.replace(state, step=step)
        assert decided(at, status, at_s=paused_s + 59).action == "wait"
        assert decided(at, status, at_s=paused_s + 60).action in {"advance", "finish"}
    later = structs.replace(state, group=1, groups=[["edge-1"], ["edge-2"]])
    assert decided(later, at_s=paused_s + 599).action == "wait"
    assert decided(later, at_s=paused_s + 600).action == "skip-stages"
    advanced = apply(state, Decision("advance", "it went well"), 9_000_000)
    assert decided(advanced, trying(advanced), at_s=60).action == "advance"


def test_disagreement_alone_is_no_alarm_after_a_rename():
    """Every photo of a renamed class has two names; the reason notes that this was not judged."""
    new = structs.replace(release(2), classes=["dog", "tabby"])
    state = rollout(challenger=new)
    decision = decided(state, trying(state, bad=True))
    assert decision.action == "advance"
    assert decision.reason == (
        "shadow went well; disagreement was not judged, because the champion's classes cat were renamed, "
        "merged or forgotten"
    )
    failing = VersionStats(version=2, answered=0, failed=100)
    assert decided(state, trying(state, bad=True, challenger=failing)).action == "roll-back"
    more = rollout(challenger=structs.replace(release(2), classes=["cat", "dog", "fox"]))
    assert decided(more, trying(more, bad=True)).action == "roll-back", "a new class explains nothing"


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
def test_a_stage_waits_for_nodes_photos_and_time(statuses, at_s, why):
    """Reports of another stage, of an earlier step or of other versions do not count."""
    decision = decided(rollout(), *statuses, at_s=at_s)
    assert decision.action == "wait"
    assert why in decision.reason


def test_an_offline_node_is_waited_for_until_the_timeout():
    """Then the others continue, and it gets the retained release when it is back online."""
    state = rollout(["edge-1", "edge-2"])
    here = trying(state, "edge-1")
    assert decided(state, here, at_s=599).reason == "for edge-2"
    assert decided(state, here, at_s=601).action == "advance"
    restarted = decide(
        state, {"edge-1": NodeState(here)}, RolloutAudits(), 9_000_000, listening_since_ms=8_990_000
    )
    assert restarted.reason == "for edge-2"
    last = structs.replace(state, step=3)
    assert decided(last, serving("edge-1"), says("edge-2"), at_s=601).action == "finish"
    assert "edge-2" in assignments(last)


def test_an_offline_group_gets_the_version_untried_except_the_first():
    """The first group has to be online: no version is rolled out that no node tried."""
    second = rollout(["edge-1"], ["edge-2"], group=1)
    assert decided(second, at_s=601).action == "skip-stages"
    skipped = apply(second, decided(second, at_s=601), 1_000_000)
    assert (skipped.group, skipped.current_step.stage) == (1, "all")
    assert decided(rollout(), at_s=FOREVER_S).action == "wait"


def test_a_node_that_refuses_is_skipped_and_gets_the_version_at_the_end():
    """Until then it is sent nothing; if the whole first group refuses, the version is rolled back."""
    state = rollout(["edge-1", "edge-2"])
    seen = {"edge_2": NodeState(says("edge-2"), refusal="expected version 1 in service, got 5")}
    decision = decided(state, trying(state), **seen)
    assert (decision.action, decision.facts) == ("skip-node", {"node": "edge-2"})
    passed = apply(state, decision, 5000)
    assert decided(passed, trying(passed), **seen).action == "advance"
    assert set(assignments(passed)) == {"edge-1"}
    later = structs.replace(passed, groups=[["edge-1", "edge-2"], ["edge-3"]], group=1)
    assert set(assignments(later)) == {"edge-1", "edge-3"}
    assert set(assignments(structs.replace(passed, phase="finished"))) == {"edge-1", "edge-2"}
    assert set(assignments(structs.replace(passed, phase="returned"))) == {"edge-1"}, (
        "the skipped node never had it"
    )
    nobody = structs.replace(state, skipped=["edge-1", "edge-2"])
    assert decided(nobody).action == "roll-back"
    assert decided(nobody).reason == "no node of the first group can try it"


def test_after_a_forced_release_the_alarm_names_the_commands_that_help():
    """Nodes that serve a third version cannot compare; their statuses show it, also after a restart."""
    nobody = rollout(["edge-1", "edge-2", "edge-3"], skipped=["edge-1", "edge-2", "edge-3"])
    statuses = (serving("edge-1", 5), serving("edge-2", 5), serving("edge-3", 1))
    assert decided(nobody, *statuses).reason == (
        "no node of the first group can try it: edge-1 serves version 5, edge-2 serves version 5, not the "
        "champion; release that again with 'gleaner cloud release models/1.tar --nodes edge-1,edge-2', then "
        "roll this version out again with 'gleaner cloud rollout models/2.tar --force'"
    )


@pytest.mark.parametrize(("groups", "end"), [([["edge-1"], ["edge-2"]], "advance"), ([["edge-1"]], "finish")])
def test_a_group_that_serves_the_version_already_is_no_alarm(groups, end):
    """A first group that has it by `cloud release` refuses to try it; the next group tries it, or it ends."""
    state, places = rollout(*groups), []
    seen = {"edge_1": NodeState(serving("edge-1"), refusal="expected version 1 in service, got 2")}
    for _ in range(3):
        decision = decided(state, **seen, at_s=1)
        places.append(decision.action)
        state = apply(state, decision, state.since_ms + 1000)
    assert places == ["skip-node", "skip-stages", end]
    if end == "advance":
        assert (set(assignments(state)), state.current_step.stage) == ({"edge-2"}, "shadow")


def test_an_alarm_anywhere_rolls_back_every_reached_node():
    """A failure in an earlier group, a bad canary report or bad audits."""
    state = rollout(["edge-1"], ["edge-2"], ["edge-3"], group=1)
    failed = decided(state, edge_1=NodeState(serving("edge-1"), failure="no memory"))
    assert (failed.action, failed.reason) == ("roll-back", "edge-1 cannot serve it: no memory")
    bad = decided(state, trying(state, "edge-2", bad=True))
    assert bad.action == "roll-back"
    audited = decide(state, {}, RolloutAudits(audit(100, 50), audit(100, 99)), 2000)
    assert audited.action == "roll-back"
    back = apply(state, bad, 5000)
    assert (back.phase, back.reason) == ("returned", bad.reason)
    sent = {
        node: (assignment.release.version, assignment.stage) for node, assignment in assignments(back).items()
    }
    assert sent == {"edge-1": (1, "all"), "edge-2": (1, "all")}
    assert decide(back, {}, RolloutAudits(), 9_000_000).action == "wait"


LIES = [
    lambda state, node: NodeState(trying(state, node), failure="no memory"),
    lambda state, node: NodeState(trying(state, node, bad=True, photos=10**9)),
    lambda state, node: NodeState(
        trying(state, node, challenger=VersionStats(version=2, answered=0, failed=10**9))
    ),
    lambda state, node: NodeState(
        trying(state, node, challenger=VersionStats(version=2, answered=100, p95_ms=9e9))
    ),
]


@pytest.mark.parametrize("lie", LIES, ids=["event", "disagreement", "failures", "latency"])
def test_g5_one_nodes_word_counts_for_one_node(lie):
    """Where others try the version too, it gets the champion back for good; a second one ends the trial."""
    state = rollout(["edge-1", "edge-2", "edge-3"], ["edge-4"], step=1)

    def seen(*liars: str) -> dict[str, NodeState]:
        return {
            node: lie(state, node) if node in liars else NodeState(trying(state, node)) for node in NODES[:3]
        }

    decision = decide(state, seen("edge-2"), RolloutAudits(), 100_000)
    assert (decision.action, decision.facts["node"]) == ("return-node", "edge-2"), decision
    alone = apply(state, decision, 100_000)
    assert {node: one.release.version for node, one in assignments(alone).items()} == {
        "edge-1": 2,
        "edge-2": 1,
        "edge-3": 2,
    }
    kept = msgspec.json.decode(msgspec.json.encode(alone), type=Rollout)
    assert decide(kept, seen("edge-2"), RolloutAudits(), 100_000).action == "advance"
    again = decide(kept, seen("edge-2", "edge-3"), RolloutAudits(), 100_000)
    assert again.action == "roll-back"
    for end in (apply(kept, again, 200_000), apply(kept, Decision("finish", "all"), 200_000)):
        assert assignments(end)["edge-2"].release.version == 1


def test_half_of_the_nodes_are_enough():
    """A node whose word is the only one, or one of two, is believed: a bad version goes back everywhere."""
    for group in (["edge-1"], ["edge-1", "edge-2"]):
        state = rollout(group)
        seen = {node: NodeState(trying(state, node)) for node in group} | {
            "edge-1": NodeState(failure="torn")
        }
        assert decide(state, seen, RolloutAudits(), 100_000).action == "roll-back"


def test_a_version_is_watched_for_the_bake_time():
    """A restart of the controller does not restart the bake time."""
    last = rollout(["edge-1"], ["edge-2"], group=1, step=3, rules=structs.replace(RULES, bake_time_s=3600))
    both = {node: NodeState(serving(node, answered=500)) for node in NODES[:2]}
    began_ms = last.since_ms
    again = msgspec.json.decode(msgspec.json.encode(last), type=Rollout)
    waits = decide(
        again, both, RolloutAudits(), began_ms + 3_599_000, listening_since_ms=began_ms + 3_000_000
    )
    assert (waits.action, waits.reason) == ("wait", "until it has been watched for 3600 s")
    assert decide(again, both, RolloutAudits(), began_ms + 3_600_000).action == "finish"
    first = structs.replace(last, group=0)
    assert decided(first, serving("edge-1")).action == "advance", "the next group is watched too"


WORSE = [
    ({"answered": 300, "failed": 30}, RolloutAudits(), "failed 30 of 330 calls (9.1%), the champion 1.0%"),
    ({"answered": 300, "p95_ms": 90.0}, RolloutAudits(), "on edge-1 its p95 is 90 ms, the champion's 10 ms"),
    ({"answered": 300}, RolloutAudits(audit(8, 1), audit(100, 95)), "audits find 1 of 8 answers right"),
]


@pytest.mark.parametrize(("did", "audits", "why"), WORSE)
def test_a_version_that_turns_bad_in_service_is_rolled_back(did, audits, why):
    """On any node, compared with the champion's figures of the canary there, which the file keeps."""
    canary = rollout(["edge-1"], ["edge-2"], step=2)
    champion = VersionStats(version=1, answered=99, failed=1, p95_ms=10.0)
    tried = apply(canary, decided(canary, trying(canary, champion=champion)), 200_000)
    assert (tried.current_step.stage, tried.baseline) == ("all", {"edge-1": champion})
    kept = msgspec.json.decode(msgspec.json.encode(tried), type=Rollout)
    for group, step in ((0, 3), (1, 1), (1, 3)):
        later = structs.replace(kept, group=group, step=step)
        seen = {
            "edge-1": NodeState(serving("edge-1", **did)),
            "edge-2": NodeState(serving("edge-2", 1, failed=99)),
        }
        decision = decide(later, seen, audits, later.since_ms + 10_000)
        assert (decision.action, why in decision.reason) == ("roll-back", True), decision
        fine = {"edge-1": NodeState(serving("edge-1", answered=300, failed=3, p95_ms=12.0))}
        assert decide(later, fine, RolloutAudits(), later.since_ms + 10_000).action != "roll-back"


@dataclass
class Fleet:
    """Nodes that follow their assignments while they are online."""

    rollout: Rollout
    sent: dict[str, tuple[str, int]] = field(default_factory=dict)

    def follow(self, online: set[str], *, bad: bool) -> dict[str, NodeState]:
        """Return the states of the online nodes after the current assignments."""
        seen = {}
        for node, assignment in assignments(self.rollout).items():
            if node not in online:
                continue
            self.sent[node] = (assignment.stage, assignment.release.version)
            tries = assignment.stage != "all"
            say = trying(self.rollout, node, bad=bad) if tries else serving(node, assignment.release.version)
            seen[node] = NodeState(say)
        return seen


NODES = ["edge-1", "edge-2", "edge-3", "edge-4"]
moments = st.lists(
    st.tuples(st.sets(st.sampled_from(NODES)), st.floats(0, 700), st.booleans(), st.booleans()),
    min_size=1,
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(moments=moments, split=st.integers(1, 3))
def test_no_stage_is_skipped_whatever_happens(moments, split):
    """Nodes go offline, versions turn bad, controllers restart: the first group tries every stage.

    A bad version is rolled back at once, and an ended rollout stays ended.
    """
    fleet = Fleet(rollout(NODES[:split], NODES[split:]))
    now_ms = fleet.rollout.since_ms
    for online, elapsed_s, bad, killed in moments:
        before = fleet.rollout
        if killed:
            fleet.rollout = msgspec.json.decode(msgspec.json.encode(before), type=Rollout)
            assert fleet.rollout == before
        seen = fleet.follow(online, bad=bad)
        now_ms += int(elapsed_s * 1000)
        decision = decide(before, seen, RolloutAudits(), now_ms)
        after = fleet.rollout = apply(before, decision, now_ms)
        on_trial = before.current_step.stage != "all" and set(before.active_nodes) & online
        if before.phase != "running":
            assert after == before
            continue
        assert (after.phase == "returned") == bool(bad and on_trial)
        assert (after.group, after.step) == (before.group, before.step) or after.since_ms > before.since_ms
        if before.group == 0 and after.phase == "running":
            assert after.step in (before.step, before.step + 1, 0)
            assert after.group == 0 or before.step == len(STEPS) - 1
        if after.phase == "finished":
            assert before.current_step.stage == "all"
            assert before.group == 1
    assert all(version == 2 or fleet.rollout.phase == "returned" for _, version in fleet.sent.values())


def test_a_state_file_of_an_earlier_version_is_read():
    """The JSON names stay, and rules that became constants are ignored."""
    state = rollout(["edge-1", "edge-2"], skipped=["edge-2"], announced=True)
    written = json.loads(msgspec.json.encode(state))
    assert (written["passed_over"], written["usual"], written["over"]) == (["edge-2"], {}, True)
    assert (written["rules"]["watch_s"], written["rules"]["patience_s"]) == (60, 600)
    written["rules"] |= {"error_margin": 0.02, "p95_factor": 1.5}
    assert msgspec.json.decode(json.dumps(written), type=Rollout) == state


def test_impossible_figures_of_one_node_hide_no_alarm():
    """Disagreements without comparisons have no interval: those of the other nodes still count."""
    state = rollout(["edge-1", "edge-2"])
    odd = trying(state, "edge-2", photos=1, disagreed=2**53)
    assert decided(state, trying(state, bad=True), odd).action == "roll-back"
