"""How a version goes out in stages, one group of nodes after the other. Decisions without I/O.

`cloud/rollout/controller.py` asks here again and again, and does what is decided.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from msgspec import Struct, structs

from cloud.evaluation.audit_stats import Audits
from cloud.rollout.canary_analysis import ENOUGH, Alarm, Facts, Rules, alarms, audit_alarms, pooled
from schemas.messages import CanaryReport, Count, Name, Probability, Release, Stage, Status, VersionStats


class Step(Struct, frozen=True, forbid_unknown_fields=True):
    """A stage of a rollout, and the photos that it takes: compared as shadow, classified as canary."""

    stage: Stage
    share: Probability = 1.0
    photos: Count = 0

    def __str__(self) -> str:
        return f"canary for {self.share:.0%} of the devices" if self.stage == "canary" else self.stage


class Rollout(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rollout as it stands: all that the controller has to remember.

    Attributes:
        champion: what every node goes back to; the node in it means nothing.
        challenger: what goes out.
        groups: of nodes, one after the other.
        steps: of each group; the last is for all devices.
        rules: when to go on and when to go back.
        began_ms: when the first step began; 0 in a file that does not say so.
        since_ms: when the present step began.
        group: the present one.
        step: the present one.
        phase: whether it is over, and how.
        reason: why it went back.
        facts: the figures behind that.
        passed_over: nodes that cannot try it; they get it last of all.
        usual: by node, what the champion did in the latest stage that tried both there.
        over: all nodes were told how it ended.
    """

    champion: Release
    challenger: Release
    groups: list[list[Name]]
    steps: list[Step]
    rules: Rules
    since_ms: int
    began_ms: int = 0
    group: int = 0
    step: int = 0
    phase: Literal["running", "returned", "finished"] = "running"
    reason: str | None = None
    facts: Facts = {}
    passed_over: list[Name] = []
    usual: dict[Name, VersionStats] = {}
    over: bool = False

    @property
    def present(self) -> Step:
        """The step that its present group is at."""
        return self.steps[self.step]

    @property
    def is_watched(self) -> bool:
        """Whether all nodes were told to serve it, and it may still go back."""
        last = self.group + 1 == len(self.groups) and self.present.stage == "all"
        return last and self.phase == "running"

    @property
    def members(self) -> list[str]:
        """The nodes of the present group that take part."""
        return [node for node in self.groups[self.group] if node not in self.passed_over]

    @property
    def reached(self) -> list[str]:
        """All nodes that heard of it so far."""
        return [node for group in self.groups[: self.group + 1] for node in group]


class Seen(NamedTuple):
    """What a node said.

    Args:
        status: The newest; None if it never said one.
        failure: Why it could not serve the challenger.
        refusal: Why it cannot try it.
    """

    status: Status | None = None
    failure: str | None = None
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done, why, and the figures behind it.

    Args:
        action: `pass-over` lets a node sit out; it is in the facts as `node`.
        usual: By node, what the champion did in the stage that ends.
    """

    action: Literal["wait", "advance", "skip", "pass-over", "return", "finish"]
    reason: str
    facts: Facts = field(default_factory=dict)
    usual: Mapping[str, VersionStats] = field(default_factory=dict)


class Order(NamedTuple):
    """What a node is to be told."""

    release: Release
    stage: Stage = "all"
    share: float = 1.0


def orders(rollout: Rollout) -> dict[str, Order]:
    """Return what each node has to be told as things stand; nodes that are not named are left alone."""
    if rollout.phase == "returned":
        tried = (node for node in rollout.reached if node not in rollout.passed_over)
        return dict.fromkeys(tried, Order(rollout.champion))
    if rollout.phase == "finished":
        return dict.fromkeys(rollout.reached, Order(rollout.challenger))
    before = [node for group in rollout.groups[: rollout.group] for node in group]
    now = Order(rollout.challenger, rollout.present.stage, rollout.present.share)
    everything = dict.fromkeys(before, Order(rollout.challenger)) | dict.fromkeys(rollout.members, now)
    return {node: order for node, order in everything.items() if node not in rollout.passed_over}


def decide(
    rollout: Rollout,
    seen: Mapping[str, Seen],
    audits: Audits,
    now_ms: int,
    listening_since_ms: int = 0,
) -> Decision:
    """Decide what is next.

    Args:
        rollout: As it stands.
        seen: By node.
        audits: Of both versions.
        now_ms: The present, UTC.
        listening_since_ms: When this controller was started: who was silent before that was not away.
    """
    if rollout.phase != "running":
        return Decision("wait", f"it is {rollout.phase}")
    if (alarm := next(_alarms(rollout, seen, audits), None)) is not None:
        return Decision("return", alarm.reason, alarm.facts)
    for node in rollout.members:
        if (refusal := seen.get(node, Seen()).refusal) is not None:
            return Decision("pass-over", f"{node} cannot try it: {refusal}", {"node": node})
    patient = now_ms - max(rollout.since_ms, listening_since_ms) < rollout.rules.patience_s * 1000
    return _progress(rollout, seen, (now_ms - rollout.since_ms) / 1000, patient=patient)


def apply(rollout: Rollout, decision: Decision, now_ms: int) -> Rollout:
    """Return the rollout after a decision; a new step is younger than anything said before it."""
    changes: dict[str, object] = {
        "since_ms": max(now_ms, rollout.since_ms + 1),
        "usual": {**rollout.usual, **decision.usual},
    }
    match decision.action:
        case "wait":
            return rollout
        case "pass-over":
            changes = {"passed_over": [*rollout.passed_over, str(decision.facts["node"])]}
        case "advance" if rollout.step + 1 < len(rollout.steps):
            changes |= {"step": rollout.step + 1}
        case "advance":
            changes |= {"group": rollout.group + 1, "step": 0}
        case "skip":
            changes |= {"step": len(rollout.steps) - 1}
        case "return":
            changes |= {"phase": "returned", "reason": decision.reason, "facts": decision.facts}
        case "finish":
            changes |= {"phase": "finished"}
    return structs.replace(rollout, **changes)


def trial_of(rollout: Rollout, status: Status | None) -> CanaryReport | None:
    """Return a node's trial if it is of this rollout's versions."""
    trial = None if status is None else status.canary
    wanted = (rollout.champion.version, rollout.challenger.version)
    return trial if trial and (trial.champion.version, trial.challenger.version) == wanted else None


def present_trials(rollout: Rollout, seen: Mapping[str, Seen]) -> dict[str, CanaryReport]:
    """Return the trials of the present step, by node: what was said before it began is another one's."""
    found = {node: trial_of(rollout, seen.get(node, Seen()).status) for node in rollout.members}
    return {
        node: trial
        for node, trial in found.items()
        if trial and trial.stage == rollout.present.stage and trial.since_ms >= rollout.since_ms
    }


def trials_in_service(rollout: Rollout, seen: Mapping[str, Seen]) -> dict[str, CanaryReport]:
    """Return how the challenger does where it serves all devices, beside what the champion did there."""
    found = {node: seen.get(node, Seen()).status for node in rollout.reached}
    nothing = VersionStats(version=rollout.champion.version)
    return {
        node: CanaryReport(
            stage="all",
            champion=rollout.usual.get(node, nothing),
            challenger=status.serving,
            since_ms=rollout.since_ms,
        )
        for node, status in found.items()
        if status and status.serving and status.serving.version == rollout.challenger.version
    }


def _alarms(rollout: Rollout, seen: Mapping[str, Seen], audits: Audits) -> Iterator[Alarm]:
    for node in rollout.reached:
        if (failure := seen.get(node, Seen()).failure) is not None:
            yield Alarm(f"{node} cannot serve it: {failure}", {"node": node})
    enough = max(1, min(ENOUGH, rollout.present.photos or ENOUGH))
    yield from alarms(present_trials(rollout, seen), rollout.rules, audits, enough)
    yield from alarms(trials_in_service(rollout, seen), rollout.rules, audits)
    yield from audit_alarms(audits)
    if rollout.group == 0 and not rollout.members and not _has_it(rollout, seen):
        yield Alarm("no node of the first group can try it", {})


def _progress(rollout: Rollout, seen: Mapping[str, Seen], spent_s: float, *, patient: bool) -> Decision:
    there = _there(rollout, seen)
    missing = [node for node in rollout.members if node not in there]
    if missing and patient:
        return Decision("wait", f"for {', '.join(missing)}")
    if rollout.present.stage == "all":
        return _after_all(rollout, spent_s)
    trials = present_trials(rollout, seen)
    trial = pooled(trials[node] for node in there)
    # The group takes it on the word of those before; of the first, all have it already.
    if trial is None and (rollout.group > 0 or not rollout.members):
        return Decision("skip", "none of the group is there to try it")
    lacking = f"for any of {', '.join(missing)}" if trial is None else _lacking(rollout.present, trial)
    if lacking is None and spent_s < rollout.rules.stage_s:
        lacking = f"until the stage has lasted {rollout.rules.stage_s:g} s"
    if trial is None or lacking is not None:
        return Decision("wait", lacking or "")
    usual = {node: trials[node].champion for node in there}
    return Decision("advance", f"{rollout.present} went well", _figures(trial), usual)


def _there(rollout: Rollout, seen: Mapping[str, Seen]) -> list[str]:
    """Return the members that are at the present step."""
    online = [
        node
        for node in rollout.members
        if (status := seen.get(node, Seen()).status) is not None and status.state != "offline"
    ]
    if rollout.present.stage != "all":
        trials = present_trials(rollout, seen)
        return [node for node in online if node in trials]
    return [node for node in online if _serves(seen[node].status, rollout.challenger.version)]


def _has_it(rollout: Rollout, seen: Mapping[str, Seen]) -> bool:
    """Tell whether all of the present group serve it, whoever gave it to them."""
    statuses = (seen.get(node, Seen()).status for node in rollout.groups[rollout.group])
    return all(_serves(status, rollout.challenger.version) for status in statuses)


def _serves(status: Status | None, version: int) -> bool:
    model = None if status is None or status.canary is not None else status.model
    return model is not None and model.state == "available" and model.version == version


def _after_all(rollout: Rollout, spent_s: float) -> Decision:
    if not rollout.is_watched:
        return Decision("advance", f"group {rollout.group + 1} serves it")
    anything_new = rollout.members or rollout.group > 0  # or all had it before
    if anything_new and spent_s < rollout.rules.watch_s:
        return Decision("wait", f"until it has been watched for {rollout.rules.watch_s:g} s")
    return Decision("finish", "every group serves it")


def _lacking(step: Step, trial: CanaryReport) -> str | None:
    """Return what a step waits for."""
    if trial.compared < min(step.photos, ENOUGH if step.stage == "canary" else step.photos):
        return f"until more than {trial.compared} photos are compared"
    if step.stage == "canary" and trial.challenger.answered < step.photos:
        return f"until it has classified {step.photos} photos, {trial.challenger.answered} so far"
    return None


def _figures(trial: CanaryReport) -> Facts:
    return {
        "answered": trial.challenger.answered,
        "failed": trial.challenger.failed,
        "compared": trial.compared,
        "disagreed": trial.disagreed,
    }
