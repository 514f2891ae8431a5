"""Canary analysis: alarms that roll a challenger back. Pure functions.

They compare failed calls, latency, labels and audited accuracy with the champion's.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import sqrt

from msgspec import structs

from cloud.evaluation.audit_stats import (
    MIN_AUDITS,
    ROLLBACK_P_VALUE,
    AuditStats,
    RolloutAudits,
    equal_accuracy_p_value,
)
from cloud.evaluation.metrics import wilson_interval
from cloud.registry.rollout_state import Facts, Rules
from schemas.messages import CanaryReport, VersionStats

MIN_PHOTOS = 20
"""Photos from which a share or a percentile is used; fewer if a stage has fewer."""

EVEN_FROM = 1000
"""Photos up to which a node counts in full, however few the others have."""
FEWEST_TO_OVERRULE = 3
"""Nodes from which one alone cannot roll a version back."""
_SUSPECTS = 8
_MIN_FAILURES = 5
_MOST = 10**9  # photos or calls of a node in one stage
_ERROR_MARGIN = 0.02  # allowed excess of the share of failed calls over the champion's
_P95_FACTOR = 1.5  # allowed 95th percentile, as a factor of the champion's; `p95_slack_ms` is added


@dataclass(frozen=True, slots=True)
class Alarm:
    """A reason to roll the challenger back, as a sentence and as figures."""

    reason: str
    facts: Facts


def credible(report: CanaryReport) -> CanaryReport:
    """Return the report of a node with possible figures only; an edge may send any.

    More disagreements than comparisons have no interval, and a sum of huge counts is none of the contract.
    """
    compared = min(report.compared, _MOST)
    return structs.replace(
        report,
        champion=credible_stats(report.champion),
        challenger=credible_stats(report.challenger),
        compared=compared,
        disagreed=min(report.disagreed, compared),
    )


def credible_stats(stats: VersionStats) -> VersionStats:
    """Return the figures of a version on a node with counts that can be."""
    return structs.replace(stats, answered=min(stats.answered, _MOST), failed=min(stats.failed, _MOST))


def evened(reports: Iterable[CanaryReport]) -> list[CanaryReport]:
    """Return reports of nodes scaled down, so that none counts for more than most others do.

    Else one edge that claims a million photos would decide for a fleet: roll a good version back, or hide
    what all others say of a bad one. Up to `EVEN_FROM` photos, or those of the median node, all count.
    """
    found = list(reports)
    sizes = sorted(map(_size, found))
    most = max(EVEN_FROM, sizes[(len(sizes) - 1) // 2]) if sizes else EVEN_FROM
    return [_scaled(one, most / _size(one)) if _size(one) > most else one for one in found]


def _size(report: CanaryReport) -> int:
    calls = (stats.answered + stats.failed for stats in (report.champion, report.challenger))
    return max(report.compared, *calls)


def _scaled(report: CanaryReport, share: float) -> CanaryReport:
    champion, challenger = (
        structs.replace(stats, answered=round(share * stats.answered), failed=round(share * stats.failed))
        for stats in (report.champion, report.challenger)
    )
    compared = round(share * report.compared)
    disagreed = min(compared, round(share * report.disagreed))
    return structs.replace(
        report, champion=champion, challenger=challenger, compared=compared, disagreed=disagreed
    )


def pool_reports(reports: Iterable[CanaryReport]) -> CanaryReport | None:
    """Sum the reports of several nodes, None without reports; the highest 95th percentile is kept."""
    found = list(reports)
    if not found:
        return None
    return structs.replace(
        found[0],
        champion=_pool_stats([report.champion for report in found]),
        challenger=_pool_stats([report.challenger for report in found]),
        compared=sum(report.compared for report in found),
        disagreed=sum(report.disagreed for report in found),
    )


def _pool_stats(stats: list[VersionStats]) -> VersionStats:
    return VersionStats(
        version=stats[0].version,
        answered=sum(one.answered for one in stats),
        failed=sum(one.failed for one in stats),
        p95_ms=max((one.p95_ms for one in stats if one.p95_ms is not None), default=None),
    )


def pooled_alarms(
    reports: Mapping[str, CanaryReport],
    rules: Rules,
    audits: RolloutAudits,
    min_photos: int = MIN_PHOTOS,
    *,
    comparable: bool = True,
) -> Iterator[Alarm]:
    """Yield an alarm for each figure of all nodes together that is significantly worse than allowed.

    Args:
        reports: By node.
        rules: The limits.
        audits: For the disagreement that the champion's own mistakes explain.
        min_photos: Photos below which disagreement gives no alarm.
        comparable: Whether both versions call their classes the same; else disagreement gives no alarm.
    """
    pooled = pool_reports(evened(reports.values()))
    if pooled is not None:
        yield from _failures(pooled)
        if comparable:
            yield from _disagreement(pooled, rules, audits.reference()[0], min_photos)


def latency_alarms(
    reports: Mapping[str, CanaryReport], rules: Rules, min_photos: int = MIN_PHOTOS
) -> dict[str, Alarm]:
    """Return an alarm by node whose challenger is slower than allowed after `min_photos` at least."""
    # Not pooled: a slow node with few photos would be hidden, and machines differ in speed.
    found = {node: next(_latency(node, one, rules, min_photos), None) for node, one in reports.items()}
    return {node: alarm for node, alarm in found.items() if alarm is not None}


def only_witness(
    reports: Mapping[str, CanaryReport], alarms: Callable[[Mapping[str, CanaryReport]], Iterable[Alarm]]
) -> str | None:
    """Return the node without whose report there would be no alarm; None if the others say so as well.

    Args:
        reports: By node, with an alarm.
        alarms: Returns the alarms of some of them.
    """
    if len(reports) < FEWEST_TO_OVERRULE:
        return None
    worst = sorted(reports, key=lambda node: -(reports[node].challenger.failed + reports[node].disagreed))
    for node in worst[:_SUSPECTS]:
        if not any(alarms({other: report for other, report in reports.items() if other != node})):
            return node
    return None


def _failures(report: CanaryReport) -> Iterator[Alarm]:
    failed, calls = report.challenger.failed, report.challenger.failed + report.challenger.answered
    if failed < _MIN_FAILURES:
        return
    baseline = report.champion.failed / max(report.champion.failed + report.champion.answered, 1)
    # The lower end of the interval: the excess must be significant, not only observed.
    if wilson_interval(failed, calls)[0] > baseline + _ERROR_MARGIN:
        reason = f"it failed {failed} of {calls} calls ({failed / calls:.1%}), the champion {baseline:.1%}"
        yield Alarm(reason, {"failed": failed, "calls": calls, "champion_share": baseline})


def _disagreement(
    report: CanaryReport, rules: Rules, champion: AuditStats, min_photos: int
) -> Iterator[Alarm]:
    """Alarm if the disagreement rate exceeds both the limit and what the champion's error rate explains."""
    if report.compared < min_photos:
        return
    if wilson_interval(report.disagreed, report.compared)[0] <= rules.disagreement:
        return
    share, explained = report.disagreed / report.compared, ""
    if champion.effective_size >= MIN_AUDITS:
        # Where two versions disagree, at least one is wrong. So a challenger that is no worse disagrees in at
        # most twice the share of the champion's mistakes (Boole's inequality).
        mistakes = 1 - champion.accuracy
        if _min_unexplained(report, champion) <= 0:
            return
        explained = f"; {mistakes:.1%} mistakes of the champion explain {min(2 * mistakes, 1):.1%}"
    reason = (
        f"it labels {report.disagreed} of {report.compared} photos otherwise than the champion "
        f"({share:.1%}, at most {rules.disagreement:.1%} allowed{explained})"
    )
    yield Alarm(reason, {"disagreed": report.disagreed, "compared": report.compared})


def _min_unexplained(report: CanaryReport, champion: AuditStats) -> float:
    """Return the lower end of the 95 % interval of the disagreement minus twice the champion's error rate.

    Source: Zou and Donner, Construction of confidence limits about effect measures (2008).
    """
    share, low = report.disagreed / report.compared, wilson_interval(report.disagreed, report.compared)[0]
    accuracy, accuracy_low = champion.accuracy, champion.interval[0]
    return share - 2 * (1 - accuracy) - sqrt((share - low) ** 2 + 4 * (accuracy - accuracy_low) ** 2)


def _latency(node: str, report: CanaryReport, rules: Rules, min_photos: int) -> Iterator[Alarm]:
    champion, challenger = report.champion, report.challenger
    if champion.p95_ms is None or challenger.p95_ms is None:
        return
    if min(champion.answered, challenger.answered) < min_photos:
        return
    # The slack is for fast models, where half as long again is within the noise of a machine.
    if challenger.p95_ms > champion.p95_ms * _P95_FACTOR + rules.p95_slack_ms:
        reason = f"on {node} its p95 is {challenger.p95_ms:.0f} ms, the champion's {champion.p95_ms:.0f} ms"
        facts: Facts = {"node": node, "p95_ms": challenger.p95_ms, "champion_p95_ms": champion.p95_ms}
        yield Alarm(reason, facts)


def audit_alarms(audits: RolloutAudits) -> Iterator[Alarm]:
    """Alarm if audits show that the challenger is significantly less accurate than the champion."""
    (champion, period), challenger = audits.reference(), audits.challenger
    if not champion.photos or equal_accuracy_p_value(champion, challenger) >= ROLLBACK_P_VALUE:
        return
    reason = (
        f"audits find {challenger.correct} of {challenger.photos} answers right "
        f"({challenger.accuracy:.1%}), the champion's {champion.accuracy:.1%} "
        f"of {champion.photos} {period}"
    )
    yield Alarm(reason, {"accuracy": challenger.accuracy, "champion_accuracy": champion.accuracy})
