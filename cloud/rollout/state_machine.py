"""Rollout state machine: stages of a version, group of nodes by group. Pure functions.

`cloud/rollout/controller.py` calls `decide` once a second and carries the decision out.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, NamedTuple

from msgspec import structs

from bus.diagnosis.sentence import Sentence
from cloud.evaluation.audit_stats import RolloutAudits
from cloud.registry.rollout_state import Facts, Rollout, Step
from cloud.rollout.canary_analysis import (
    MIN_PHOTOS,
    Alarm,
    audit_alarms,
    credible,
    credible_stats,
    latency_alarms,
    only_witness,
    pool_reports,
    pooled_alarms,
)
from schemas.field_types import Stage
from schemas.messages import CanaryReport, Release, Status, VersionStats
from schemas.text import listed


class NodeState(NamedTuple):
    """What is known about a node.

    Attributes:
        status: Its newest status, None before the first.
        failure: Why it could not serve the challenger.
        refusal: Why it rejected the challenger's release.
    """

    status: Status | None = None
    failure: str | None = None
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The next action with its reason and figures.

    Attributes:
        action: `skip-node` excludes the node in `facts`; `return-node` gives it the champion back, because it
            alone says that the version is bad; `skip-stages` gives the group the version untried;
            `pause`, `resume` and `promote` are an operator's, see `cloud/rollout/steering.py`.
        reason: A sentence.
        facts: Figures behind it.
        baseline: By node, the champion's figures in the stage that ends.
    """

    action: Literal[
        "wait",
        "advance",
        "skip-stages",
        "skip-node",
        "return-node",
        "roll-back",
        "finish",
        "pause",
        "resume",
        "promote",
    ]
    reason: str
    facts: Facts = field(default_factory=dict)
    baseline: Mapping[str, VersionStats] = field(default_factory=dict)


class Assignment(NamedTuple):
    """The release that a node should have, and its stage there."""

    release: Release
    stage: Stage = "all"
    share: float = 1.0


def assignments(rollout: Rollout) -> dict[str, Assignment]:
    """Return by node the release that it should have now; nodes that are absent keep what they have."""
    kept = dict.fromkeys(rollout.failed, Assignment(rollout.champion))
    if rollout.phase == "returned":
        # Skipped nodes never had the challenger: a release of the champion could only disturb them.
        tried = (node for node in rollout.reached_nodes if node not in rollout.skipped)
        return dict.fromkeys(tried, Assignment(rollout.champion)) | kept
    if rollout.phase == "finished":
        return dict.fromkeys(rollout.reached_nodes, Assignment(rollout.challenger)) | kept
    before = [node for group in rollout.groups[: rollout.group] for node in group]
    now = Assignment(rollout.challenger, rollout.current_step.stage, rollout.current_step.share)
    found = dict.fromkeys(before, Assignment(rollout.challenger)) | dict.fromkeys(rollout.active_nodes, now)
    return {node: assignment for node, assignment in found.items() if node not in rollout.skipped} | kept


def decide(
    rollout: Rollout,
    nodes: Mapping[str, NodeState],
    audits: RolloutAudits,
    now_ms: int,
    listening_since_ms: int = 0,
) -> Decision:
    """Decide the next action.

    Args:
        rollout: The current state.
        nodes: What is known, by node.
        audits: Of both versions.
        now_ms: The present, UTC.
        listening_since_ms: When this controller started, UTC.
    """
    if rollout.phase != "running":
        return Decision("wait", f"it is {rollout.phase}")
    judged = _judged(rollout, nodes, audits)
    if (alarm := next(_alarms(rollout, nodes, audits, judged), None)) is not None:
        return Decision("roll-back", alarm.reason, alarm.facts)
    if (said := _heard(rollout, nodes, judged)) is not None:
        return said
    for node in rollout.active_nodes:
        if (refusal := nodes.get(node, NodeState()).refusal) is not None:
            return Decision("skip-node", f"{node} cannot try it: {refusal}", {"node": node})
    if rollout.paused:
        return Decision("wait", Sentence("an operator paused it"))
    # As if the step had begun later: during a pause no photos are compared and the version is not watched.
    began_ms = rollout.since_ms + rollout.paused_ms
    # A node's silence before this controller listened does not show that it was offline.
    waited_ms = now_ms - max(began_ms, listening_since_ms)
    patient = waited_ms < rollout.rules.node_timeout_s * 1000
    return _progress(rollout, nodes, (now_ms - began_ms) / 1000, patient=patient)


def _heard(rollout: Rollout, nodes: Mapping[str, NodeState], judged: Sequence["_Judged"]) -> Decision | None:
    """Return what follows from the word of single nodes, None if none says anything new."""
    complaints = _complaints(rollout, nodes, judged)
    if not complaints:
        return None
    node, alarm = next(iter(complaints.items()))
    if is_credible({*rollout.failed, *complaints}, rollout.voting_nodes):
        return Decision("roll-back", alarm.reason, alarm.facts)
    reason = f"{node} alone gets version {rollout.champion.version} back: {alarm.reason}"
    return Decision("return-node", reason, {**alarm.facts, "node": node})


def is_credible(complaining: Collection[str], nodes: int) -> bool:
    """Return whether what some nodes say of a version counts for all: two of them, or half.

    The certificate of an edge can be stolen, and its disk can be full: one node's word counts for that node
    where others have the version too.
    """
    return len(complaining) > 1 or 2 * len(complaining) >= nodes


def apply(rollout: Rollout, decision: Decision, now_ms: int) -> Rollout:
    """Return the rollout after a decision."""
    match decision.action:
        case "wait":
            return rollout
        # In these `since_ms` stays: reports of the current step still count.
        case "skip-node" | "return-node":
            node = str(decision.facts["node"])
            failed = [*rollout.failed, node] if decision.action == "return-node" else rollout.failed
            return structs.replace(rollout, skipped=[*rollout.skipped, node], failed=failed)
        case "pause" if not rollout.paused:
            return structs.replace(rollout, paused=True, paused_at_ms=now_ms)
        case "resume" if rollout.paused:
            # The step may have begun during the pause; the clock may have been set back.
            lasted_ms = max(0, now_ms - max(rollout.paused_at_ms, rollout.since_ms))
            return structs.replace(rollout, paused=False, paused_ms=rollout.paused_ms + lasted_ms)
        case "pause" | "resume":
            return rollout
    return structs.replace(
        rollout,
        # Strictly later, even if the clock was set back: older reports must not count for the new step.
        since_ms=max(now_ms, rollout.since_ms + 1),
        paused_ms=0,
        baseline={**rollout.baseline, **decision.baseline},
        **_moved(rollout, decision),
    )


def _moved(rollout: Rollout, decision: Decision) -> dict[str, Any]:
    """Return the fields of the rollout's position after a decision."""
    last = len(rollout.steps) - 1
    match decision.action:
        case "advance" if rollout.step < last:
            return {"step": rollout.step + 1}
        case "advance":
            return {"group": rollout.group + 1, "step": 0}
        case "skip-stages":
            return {"step": last}
        case "promote" if not rollout.is_baking:
            return {"group": len(rollout.groups) - 1, "step": last, "paused": False}
        case "roll-back":
            return {"phase": "returned", "reason": decision.reason, "facts": decision.facts}
    return {"phase": "finished"}


def _report_of(rollout: Rollout, status: Status | None) -> CanaryReport | None:
    """Return a node's canary report if it compares this rollout's versions."""
    report = None if status is None else status.canary
    versions = (rollout.champion.version, rollout.challenger.version)
    if report is None or (report.champion.version, report.challenger.version) != versions:
        return None
    return credible(report)


def current_reports(rollout: Rollout, nodes: Mapping[str, NodeState]) -> dict[str, CanaryReport]:
    """Return the canary reports of the current step, by node."""
    found = {node: _report_of(rollout, nodes.get(node, NodeState()).status) for node in rollout.active_nodes}
    return {
        node: report
        for node, report in found.items()
        # An edge's counts begin with the release; older ones belong to an earlier step.
        if report and report.stage == rollout.current_step.stage and report.since_ms >= rollout.since_ms
    }


def bake_reports(rollout: Rollout, nodes: Mapping[str, NodeState]) -> dict[str, CanaryReport]:
    """Return, by node that serves the challenger to all devices, a report against the champion's baseline."""
    found = {node: nodes.get(node, NodeState()).status for node in rollout.reached_nodes}
    nothing = VersionStats(version=rollout.champion.version)
    return {
        node: CanaryReport(
            stage="all",
            champion=rollout.baseline.get(node, nothing),
            challenger=credible_stats(status.serving),
            since_ms=rollout.since_ms,
        )
        for node, status in found.items()
        if status
        and status.serving
        and status.serving.version == rollout.challenger.version
        and node not in rollout.failed
    }


class _Judged(NamedTuple):
    """Reports of several nodes, their first alarm, and the node without which there would be none."""

    reports: Mapping[str, CanaryReport]
    alarm: Alarm | None
    only_witness: str | None


def _judged(rollout: Rollout, nodes: Mapping[str, NodeState], audits: RolloutAudits) -> list[_Judged]:
    """Judge the reports of the trial, and those of nodes that serve the challenger."""
    judge = partial(pooled_alarms, rules=rollout.rules, audits=audits)
    in_trial = partial(judge, min_photos=_min_photos(rollout), comparable=not _renamed(rollout))
    found = []
    for reports, alarms in (
        (current_reports(rollout, nodes), in_trial),
        (bake_reports(rollout, nodes), judge),
    ):
        alarm = next(alarms(reports), None)
        found.append(_Judged(reports, alarm, None if alarm is None else only_witness(reports, alarms)))
    return found


def _alarms(
    rollout: Rollout, nodes: Mapping[str, NodeState], audits: RolloutAudits, judged: Sequence[_Judged]
) -> Iterator[Alarm]:
    """Yield the alarms that do not depend on the word of a single node."""
    for one in judged:
        if one.alarm is not None and one.only_witness is None:
            yield one.alarm
    yield from audit_alarms(audits)
    if rollout.group == 0 and not rollout.active_nodes and not _group_serves_it(rollout, nodes):
        yield Alarm(_why_untried(rollout, nodes), {})


def _complaints(
    rollout: Rollout, nodes: Mapping[str, NodeState], judged: Sequence[_Judged]
) -> dict[str, Alarm]:
    """Return what single nodes say against the challenger, by node."""
    found: dict[str, Alarm] = {}
    for node in rollout.reached_nodes:
        if (failure := nodes.get(node, NodeState()).failure) is not None and node not in rollout.failed:
            found[node] = Alarm(f"{node} cannot serve it: {failure}", {"node": node})
    for reports, alarm, witness in judged:
        if alarm is not None and witness is not None:
            found.setdefault(witness, alarm)
        for node, slow in latency_alarms(reports, rollout.rules, _min_photos(rollout)).items():
            found.setdefault(node, slow)
    return found


def _min_photos(rollout: Rollout) -> int:
    return max(1, min(MIN_PHOTOS, rollout.current_step.photos or MIN_PHOTOS))


def _why_untried(rollout: Rollout, nodes: Mapping[str, NodeState]) -> str:
    """Say what to do if the first group serves neither version, for example after `cloud release --force`."""
    champion = rollout.champion.version
    statuses = {node: nodes.get(node, NodeState()).status for node in rollout.groups[0]}
    others = {
        node: status.model.version
        for node, status in statuses.items()
        if status and status.model and status.model.version not in (None, champion)
    }
    if not others:
        return "no node of the first group can try it"
    serving = listed([f"{node} serves version {version}" for node, version in others.items()])
    return (
        f"no node of the first group can try it: {serving}, not the champion; release that again with "
        f"'gleaner cloud release models/{champion}.tar --nodes {','.join(others)}', then roll this version "
        f"out again with 'gleaner cloud rollout models/{rollout.challenger.version}.tar --force'"
    )


def _progress(rollout: Rollout, nodes: Mapping[str, NodeState], spent_s: float, *, patient: bool) -> Decision:
    ready = _ready_nodes(rollout, nodes)
    missing = [node for node in rollout.active_nodes if node not in ready]
    if missing and patient:
        return Decision("wait", Sentence("for %(nodes)s", nodes=listed(missing)))
    if rollout.current_step.stage == "all":
        return _after_all(rollout, spent_s)
    reports = current_reports(rollout, nodes)
    report = pool_reports(reports[node] for node in ready)
    # A later group may get the version untried, because the groups before it tried it. The first group may
    # not, unless all its nodes serve it already.
    if report is None and (rollout.group > 0 or not rollout.active_nodes):
        return Decision("skip-stages", "no node of the group is online to try it")
    if report is None:
        return Decision("wait", Sentence("for any of %(nodes)s", nodes=listed(missing)))
    lacking = _lacking(rollout.current_step, report)
    if lacking is None and spent_s < rollout.rules.stage_s:
        lacking = Sentence("until the stage has lasted %(seconds)s s", seconds=_short(rollout.rules.stage_s))
    if lacking is not None:
        return Decision("wait", lacking)
    baseline = {node: reports[node].champion for node in ready}
    if renamed := listed(_renamed(rollout)):
        went = Decision(
            "advance",
            f"{rollout.current_step} went well; disagreement was not judged, because the champion's classes "
            f"{renamed} were renamed, merged or forgotten",
        )
    else:
        went = Decision("advance", f"{rollout.current_step} went well")
    return replace(went, facts=_figures(report), baseline=baseline)


def _renamed(rollout: Rollout) -> list[str]:
    """Return the champion's classes that the challenger does not have by that name.

    The gate keeps a version that lost a class which photos still have. Edges compare labels by name.
    """
    return [name for name in rollout.champion.classes if name not in rollout.challenger.classes]


def _ready_nodes(rollout: Rollout, nodes: Mapping[str, NodeState]) -> list[str]:
    """Return the active nodes that are online and at the current step."""
    online = [
        node
        for node in rollout.active_nodes
        if (status := nodes.get(node, NodeState()).status) is not None and status.state != "offline"
    ]
    if rollout.current_step.stage != "all":
        reports = current_reports(rollout, nodes)
        return [node for node in online if node in reports]
    return [node for node in online if _serves(nodes[node].status, rollout.challenger.version)]


def _group_serves_it(rollout: Rollout, nodes: Mapping[str, NodeState]) -> bool:
    """Return True if the whole current group serves the challenger, for example after `cloud release`."""
    statuses = (nodes.get(node, NodeState()).status for node in rollout.groups[rollout.group])
    return all(_serves(status, rollout.challenger.version) for status in statuses)


def _serves(status: Status | None, version: int) -> bool:
    model = None if status is None or status.canary is not None else status.model
    return model is not None and model.state == "available" and model.version == version


def _after_all(rollout: Rollout, spent_s: float) -> Decision:
    if not rollout.is_baking:
        return Decision("advance", f"group {rollout.group + 1} serves it")
    anything_new = rollout.active_nodes or rollout.group > 0  # else all nodes had it before this rollout
    if anything_new and spent_s < rollout.rules.bake_time_s:
        watched = _short(rollout.rules.bake_time_s)
        return Decision("wait", Sentence("until it has been watched for %(seconds)s s", seconds=watched))
    return Decision("finish", "every group serves it")


def _short(seconds: float) -> str:
    return f"{seconds:g}"


def _lacking(step: Step, report: CanaryReport) -> Sentence | None:
    """Return what a step waits for, None if it has seen enough photos."""
    # Edges drop comparisons under load: in a canary, `MIN_PHOTOS` of them suffice.
    if report.compared < min(step.photos, MIN_PHOTOS if step.stage == "canary" else step.photos):
        return Sentence("until more than %(photos)s photos are compared", photos=report.compared)
    if step.stage == "canary" and report.challenger.answered < step.photos:
        return Sentence(
            "until it has classified %(photos)s photos, %(answered)s so far",
            photos=step.photos,
            answered=report.challenger.answered,
        )
    return None


def _figures(report: CanaryReport) -> Facts:
    return {
        "answered": report.challenger.answered,
        "failed": report.challenger.failed,
        "compared": report.compared,
        "disagreed": report.disagreed,
    }
