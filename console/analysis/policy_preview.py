"""Preview of harvest rules on the photos that were answered last.

The edge's own functions decide: `edge/harvest/lanes.py` and `edge/harvest/quotas.py`. What they need beyond a
Result is replaced as follows, which the page explains:

- The draw for the audit depends on a secret of each node: here other photos are drawn, as probably.
- Near-duplicates need the picture: a photo that the edge held for one counts as one, unless the rules turn
  that off; photos that would be near-duplicates of newly harvested ones are not found.
- Flips of the label between near frames are not found. Bytes are unknown: only the caps in samples count.
- The photos before the first of these, which used quotas and caps already, are not known.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from edge.harvest.history import HarvestedSample
from edge.harvest.lanes import Decision, drawn_for_audit, lane_of
from edge.harvest.quotas import Budget
from schemas.lanes import AUDIT, AUTO, LANES
from schemas.messages import Result
from schemas.policy_rules import HarvestRules

_NEAR_DUPLICATE = "near-duplicate"


@dataclass(frozen=True, slots=True)
class Preview:
    """What rules do with some photos.

    Attributes:
        photos: How many.
        lanes: Harvested photos by lane.
        refused: Photos that are not harvested, by reason, the most frequent first.
        classes: Harvested photos by class and lane.
    """

    photos: int
    lanes: dict[str, int]
    refused: dict[str, int]
    classes: dict[str, dict[str, int]]

    @property
    def harvested(self) -> int:
        """How many photos are harvested."""
        return sum(self.lanes.values())


@dataclass(frozen=True, slots=True)
class _Scores:
    label: str
    confidence: float
    margin: float
    entropy: float
    novelty: float | None


def preview(results: Iterable[Result], rules: HarvestRules) -> Preview:
    """Decide about answered photos by other rules.

    Args:
        results: With status `ok`, in order of their times; others are skipped.
        rules: Of all nodes; each node has its budget.
    """
    budgets: dict[str, Budget] = {}
    decisions = [
        (one, _decide(one, rules, budgets.setdefault(one.node, Budget())))
        for one in results
        if one.label is not None and one.confidence is not None
    ]
    return _counted(decisions)


def recorded(results: Iterable[Result]) -> Preview:
    """Count what the edges did with the same photos."""
    decisions = []
    for one in results:
        if one.label is not None and one.confidence is not None:
            lane = one.harvest if one.harvest in LANES else None
            decisions.append((one, Decision(lane, None if lane else one.harvest or "unknown")))
    return _counted(decisions)


def _counted(decisions: list[tuple[Result, Decision]]) -> Preview:
    lanes = Counter[str](decision.lane for _, decision in decisions if decision.lane is not None)
    refused = Counter[str](decision.refused or "" for _, decision in decisions if decision.lane is None)
    by_class: OrderedDict[str, Counter[str]] = OrderedDict()
    for one, decision in decisions:
        if decision.lane is not None:
            by_class.setdefault(str(one.label), Counter())[decision.lane] += 1
    return Preview(
        len(decisions),
        {lane: lanes[lane] for lane in LANES if lanes[lane]},
        dict(refused.most_common()),
        {name: dict(counts) for name, counts in sorted(by_class.items())},
    )


def _decide(result: Result, rules: HarvestRules, budget: Budget) -> Decision:
    now = result.answered_at_ms / 1000
    budget.active.seen(result.device, now)
    decision = _lane(result, rules)
    if decision.lane is None:
        return decision
    label = str(result.label)
    refused = budget.refusal(decision.lane, label, 0, rules, now, device=result.device)
    if refused is not None:
        return Decision(None, refused)
    budget.spend(
        HarvestedSample(
            photo_id=result.photo_id,
            device=result.device,
            dhash=0,
            label=label,
            lane=decision.lane,
            size_bytes=0,
            at=now,
        )
    )
    return decision


def _lane(result: Result, rules: HarvestRules) -> Decision:
    if drawn_for_audit(result.photo_id, rules.audit_share):
        return Decision(AUDIT)
    if result.harvest == _NEAR_DUPLICATE and rules.near_duplicate_s:
        return Decision(None, _NEAR_DUPLICATE)
    decision = lane_of(_scores(result), rules)
    # A damaged photo has no sure label for any answer of the model.
    return Decision(None, "damaged") if decision.lane == AUTO and result.damaged else decision


def _scores(result: Result) -> _Scores:
    unknown = float("nan")  # counts as uncertain, as at the edge
    return _Scores(
        str(result.label),
        unknown if result.confidence is None else result.confidence,
        unknown if result.margin is None else result.margin,
        unknown if result.entropy is None else result.entropy,
        result.novelty,
    )
