"""A rollout as its page shows it: stages, nodes, and the comparison as it grows."""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, TypeAlias

from cloud.evaluation.audit_stats import RolloutAudits
from cloud.evaluation.metrics import wilson_interval
from cloud.registry.rollout_state import Rollout, Step
from cloud.rollout.canary_analysis import pool_reports
from cloud.rollout.state_machine import NodeState, current_reports, decide
from schemas.messages import CanaryReport, Status

Progress: TypeAlias = Literal["done", "current", "ahead"]
MAX_POINTS = 120


class StageView(NamedTuple):
    """A stage of a group of nodes."""

    step: Step
    progress: Progress


class GroupView(NamedTuple):
    """A group of nodes with its stages."""

    nodes: list[str]
    stages: list[StageView]
    progress: Progress


class NodeView(NamedTuple):
    """A node of the rollout.

    Attributes:
        node: Its name.
        serving: Version in service; None if unknown.
        report: Of the present stage, None without one.
        skipped: Whether it cannot try the version.
        online: Whether its edge is.
    """

    node: str
    serving: int | None
    report: CanaryReport | None
    skipped: bool
    online: bool


class Compared(NamedTuple):
    """The comparison at one moment: disagreement with its 95 % interval."""

    photos: int
    low: float
    share: float
    high: float


class RolloutView(NamedTuple):
    """All that the page shows.

    Attributes:
        rollout: Its state.
        groups: In their order.
        nodes: In their order.
        report: Of all nodes of the present stage together, None before the first.
        next_step: What it waits for, or does next, in the words of the controller.
        growth: The comparison since the stage began.
    """

    rollout: Rollout
    groups: list[GroupView]
    nodes: list[NodeView]
    report: CanaryReport | None
    next_step: str
    growth: list[Compared]


def rollout_view(
    rollout: Rollout, edges: Mapping[str, Status], seen: Iterable[CanaryReport], now_ms: int
) -> RolloutView:
    """Describe a rollout by its state and what the edges report.

    Args:
        rollout: Its state.
        edges: The last status of each node's edge.
        seen: Pooled reports of the controller, oldest first.
        now_ms: The present, UTC.
    """
    nodes = {node: NodeState(status) for node, status in edges.items()}
    reports = current_reports(rollout, nodes)
    # Without the audits, which take a while to read: this informs the page and decides nothing.
    decision = decide(rollout, nodes, RolloutAudits(), now_ms)
    return RolloutView(
        rollout,
        [_group(rollout, number) for number in range(len(rollout.groups))],
        [_node(rollout, node, edges.get(node), reports) for group in rollout.groups for node in group],
        pool_reports(reports.values()),
        decision.reason,
        growth(rollout, seen),
    )


def growth(rollout: Rollout, seen: Iterable[CanaryReport]) -> list[Compared]:
    """Return the comparison of the present stage as it grew, at most `MAX_POINTS`, evenly chosen."""
    versions = (rollout.champion.version, rollout.challenger.version)
    own = [
        one
        for one in seen
        if one.compared
        and (one.champion.version, one.challenger.version) == versions
        and one.stage == rollout.current_step.stage
        and one.since_ms >= rollout.since_ms
    ]
    grown: list[CanaryReport] = []
    for one in own:
        # Nodes that go away take their photos along: the curve is over growing numbers only.
        if not grown or one.compared > grown[-1].compared:
            grown.append(one)
    chosen = grown[:: -(-len(grown) // MAX_POINTS) or 1]
    return [_compared(one) for one in (chosen if chosen[-1:] == grown[-1:] else [*chosen, grown[-1]])]


def _compared(report: CanaryReport) -> Compared:
    disagreed = min(report.disagreed, report.compared)
    low, high = wilson_interval(disagreed, report.compared)
    return Compared(report.compared, low, disagreed / report.compared, high)


def _group(rollout: Rollout, number: int) -> GroupView:
    progress = _progress(rollout, number, rollout.group)
    stages = [
        StageView(step, _progress(rollout, at, rollout.step) if progress == "current" else progress)
        for at, step in enumerate(rollout.steps)
    ]
    return GroupView(rollout.groups[number], stages, progress)


def _progress(rollout: Rollout, at: int, now: int) -> Progress:
    if rollout.phase == "finished" or at < now:
        return "done"
    return "current" if at == now else "ahead"


def _node(
    rollout: Rollout, node: str, status: Status | None, reports: Mapping[str, CanaryReport]
) -> NodeView:
    model = None if status is None else status.model
    return NodeView(
        node,
        None if model is None else model.version,
        reports.get(node),
        node in rollout.skipped,
        status is not None and status.state != "offline",
    )
