"""What makes a version on trial go back: failures, latency, other labels, accuracy. Pure functions."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Annotated

from msgspec import Meta, Struct, structs

from cloud.evaluation.audit_stats import ENOUGH_AUDITS, SURELY, Audit, Audits, chance_as_good
from cloud.evaluation.metrics import wilson_interval
from schemas.messages import CanaryReport, Probability, Seconds, VersionStats

Facts = dict[str, str | int | float | bool]

ENOUGH = 20
"""Photos from which a share or a percentile says something; fewer if a stage asks for fewer."""

_FEW_FAILURES = 5


class Rules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a stage is over, and when a version goes back."""

    stage_s: Annotated[Seconds, Meta(description="each stage takes so long at least")] = 600.0
    watch_s: Annotated[Seconds, Meta(description="after the last it may still go back for so long")] = 3600.0
    patience_s: Annotated[Seconds, Meta(description="nodes that are away are waited for so long")] = 1800.0
    error_margin: Annotated[Probability, Meta(description="failed calls above the champion's share")] = 0.02
    p95_factor: Annotated[float, Meta(ge=1, description="of the champion's p95")] = 1.5
    p95_slack_ms: Annotated[float, Meta(ge=0, description="and so much above it")] = 20.0
    disagreement: Annotated[Probability, Meta(description="share of photos with another label")] = 0.2


@dataclass(frozen=True, slots=True)
class Alarm:
    """Why a version has to go back, in words, and the figures behind that."""

    reason: str
    facts: Facts


def pooled(trials: Iterable[CanaryReport]) -> CanaryReport | None:
    """Add up what several nodes say; the slowest of them is the percentile."""
    found = list(trials)
    if not found:
        return None
    return structs.replace(
        found[0],
        champion=_pooled([trial.champion for trial in found]),
        challenger=_pooled([trial.challenger for trial in found]),
        compared=sum(trial.compared for trial in found),
        disagreed=sum(trial.disagreed for trial in found),
    )


def _pooled(tried: list[VersionStats]) -> VersionStats:
    return VersionStats(
        version=tried[0].version,
        answered=sum(one.answered for one in tried),
        failed=sum(one.failed for one in tried),
        p95_ms=max((one.p95_ms for one in tried if one.p95_ms is not None), default=None),
    )


def alarms(
    trials: Mapping[str, CanaryReport], rules: Rules, audits: Audits, enough: int = ENOUGH
) -> Iterator[Alarm]:
    """Yield what is wrong with the challenger of a trial.

    Shares are of all nodes together, and count only where even the lower end of their 95 % interval is too
    high; latency is held against the champion's on the same node.

    Args:
        trials: By node.
        rules: The bounds.
        audits: How many mistakes explain that versions disagree.
        enough: Photos before which nothing is said.
    """
    together = pooled(trials.values())
    if together is not None:
        yield from _failures(together, rules)
        yield from _disagreement(together, rules, audits.reference()[0], enough)
    for node, trial in trials.items():
        yield from _latency(node, trial, rules, enough)


def _failures(trial: CanaryReport, rules: Rules) -> Iterator[Alarm]:
    failed, calls = trial.challenger.failed, trial.challenger.failed + trial.challenger.answered
    if failed < _FEW_FAILURES:
        return
    usual = trial.champion.failed / max(trial.champion.failed + trial.champion.answered, 1)
    if wilson_interval(failed, calls)[0] > usual + rules.error_margin:
        reason = f"it failed {failed} of {calls} calls ({failed / calls:.1%}), the champion {usual:.1%}"
        yield Alarm(reason, {"failed": failed, "calls": calls, "champion_share": usual})


def _disagreement(trial: CanaryReport, rules: Rules, champion: Audit, enough: int) -> Iterator[Alarm]:
    """Find other labels than the champion's, more than the rules allow and than its mistakes explain.

    Where two versions disagree at least one is wrong, so they do in at most as many photos as both get wrong
    together (Boole's inequality). A challenger that is no worse thus disagrees in at most twice the share of
    the champion's mistakes; so much is no reason against it.
    """
    if trial.compared < enough or wilson_interval(trial.disagreed, trial.compared)[0] <= rules.disagreement:
        return
    share, explained = trial.disagreed / trial.compared, ""
    if champion.effective >= ENOUGH_AUDITS:
        mistakes = 1 - champion.accuracy
        if _least_unexplained(trial, champion) <= 0:
            return
        explained = f"; {mistakes:.1%} mistakes of the champion explain {min(2 * mistakes, 1):.1%}"
    reason = (
        f"it labels {trial.disagreed} of {trial.compared} photos otherwise than the champion "
        f"({share:.1%}, at most {rules.disagreement:.1%} allowed{explained})"
    )
    yield Alarm(reason, {"disagreed": trial.disagreed, "compared": trial.compared})


def _least_unexplained(trial: CanaryReport, champion: Audit) -> float:
    """Return the lower end of the 95 % interval of the disagreement less twice the champion's mistakes.

    Source: Zou and Donner, Construction of confidence limits about effect measures (2008).
    """
    share, low = trial.disagreed / trial.compared, wilson_interval(trial.disagreed, trial.compared)[0]
    accuracy, least = champion.accuracy, champion.interval[0]
    return share - 2 * (1 - accuracy) - sqrt((share - low) ** 2 + 4 * (accuracy - least) ** 2)


def _latency(node: str, trial: CanaryReport, rules: Rules, enough: int) -> Iterator[Alarm]:
    champion, challenger = trial.champion, trial.challenger
    if champion.p95_ms is None or challenger.p95_ms is None:
        return
    if min(champion.answered, challenger.answered) < enough:
        return
    if challenger.p95_ms > champion.p95_ms * rules.p95_factor + rules.p95_slack_ms:
        reason = f"on {node} its p95 is {challenger.p95_ms:.0f} ms, the champion's {champion.p95_ms:.0f} ms"
        facts: Facts = {"node": node, "p95_ms": challenger.p95_ms, "champion_p95_ms": champion.p95_ms}
        yield Alarm(reason, facts)


def audit_alarms(audits: Audits) -> Iterator[Alarm]:
    """Yield what people's labels say against the challenger: it is surely less accurate."""
    (champion, when), challenger = audits.reference(), audits.challenger
    if not champion.photos or chance_as_good(champion, challenger) >= SURELY:
        return
    reason = (
        f"audits find {challenger.right} of {challenger.photos} answers right "
        f"({challenger.accuracy:.1%}), the champion's {champion.accuracy:.1%} "
        f"of {champion.photos} {when}"
    )
    yield Alarm(reason, {"accuracy": challenger.accuracy, "champion_accuracy": champion.accuracy})
