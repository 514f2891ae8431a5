"""When a round of training starts: plain functions of what the dataset and the cards say, no I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from cloud.evaluation.audit_stats import AuditStats

Trigger: TypeAlias = Literal["labels", "samples", "drift", "audit", "hand"]
Scores: TypeAlias = NDArray[np.float64]

BINS = 10


class Triggers(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What starts a round of training."""

    labels: Annotated[int, Meta(ge=1, description="labels by people that are new since the last round")] = 20
    samples: Annotated[int, Meta(ge=1, description="samples that are new since the last round")] = 1_000
    stability: Annotated[
        float, Meta(gt=0, description="population stability index of the confidences; above it they drifted")
    ] = 0.25
    drift_samples: Annotated[
        int,
        Meta(
            ge=50,
            description="samples on either side for that, of the lane audit where there are so many; of 200"
            " chance alone may look like drift",
        ),
    ] = 400
    audits: Annotated[
        int, Meta(ge=1, description="labels of the lane audit, new since the last round, to judge by them")
    ] = 30
    cool_down_s: Annotated[
        float, Meta(ge=0, le=1e7, description="pause after a round, whatever came of it, in seconds")
    ] = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What there is to decide by; "new" is what the last round did not see.

    Attributes:
        labels: new labels by people.
        samples: new samples.
        reference: confidences of the version in service before, `[n]`.
        recent: its confidences in what is new, `[m]`.
        compared: what these are of: the lane audit, or all samples, whose choice follows the policy.
        audit: of the version in service, by new labels.
        accuracy_low: lower end of its interval on the gold set, None if it was never measured.
        last_round_s: seconds since the last round ended, None if there was none.
    """

    labels: int = 0
    samples: int = 0
    reference: Scores = field(default_factory=lambda: np.zeros(0))
    recent: Scores = field(default_factory=lambda: np.zeros(0))
    compared: Literal["audits", "samples"] = "samples"
    audit: AuditStats = field(default_factory=AuditStats)
    accuracy_low: float | None = None
    last_round_s: float | None = None


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a round starts.

    Attributes:
        trigger: which rule says so.
        words: the same in words.
        facts: the figures behind it.
    """

    trigger: Trigger
    words: str
    facts: Mapping[str, int | float] = field(default_factory=dict)


def decide(facts: Facts, rules: Triggers) -> Reason | None:
    """Decide whether a round starts now.

    Returns:
        The first reason that holds: an audit that failed, drift, labels, samples; None during the pause after
        a round, or without a reason.
    """
    if facts.last_round_s is not None and 0 <= facts.last_round_s < rules.cool_down_s:
        return None
    return _audit(facts, rules) or _drift(facts, rules) or _counts(facts, rules)


def _audit(facts: Facts, rules: Triggers) -> Reason | None:
    """Find the version in service surely worse on new photos than its card says."""
    audit, low = facts.audit, facts.accuracy_low
    if low is None or audit.photos < rules.audits or audit.interval[1] >= low:
        return None
    words = f"{audit.accuracy:.1%} right in {audit.photos} audits, where the card says at least {low:.1%}"
    return Reason("audit", words, {"audits": audit.photos, "accuracy": audit.accuracy})


def _drift(facts: Facts, rules: Triggers) -> Reason | None:
    if min(len(facts.reference), len(facts.recent)) < rules.drift_samples:
        return None
    index = stability_index(facts.reference, facts.recent)
    if index <= rules.stability:
        return None
    latest = f"the latest {len(facts.recent)} {facts.compared}"
    words = f"the confidences of {latest} drifted: stability index {index:.2f}"
    return Reason("drift", words, {"stability_index": index, "samples": len(facts.recent)})


def _counts(facts: Facts, rules: Triggers) -> Reason | None:
    if facts.labels >= rules.labels:
        return Reason("labels", f"{facts.labels} new labels by people", {"labels": facts.labels})
    if facts.samples >= rules.samples:
        return Reason("samples", f"{facts.samples} new samples", {"samples": facts.samples})
    return None


def stability_index(reference: Scores, recent: Scores) -> float:
    """Measure how far a distribution has moved.

    Args:
        reference: `[n]`, n at least 1.
        recent: `[m]`, m at least 1.

    Returns:
        The population stability index over tenths of the reference, at least 0; above 0.25 it is customary to
        speak of a shift. Each tenth is smoothed by half a sample, so that an empty one is not infinity.

    Source: Yurdakul and Naranjo, Statistical properties of the population stability index (2020).
    """
    edges = np.unique(np.quantile(reference, np.linspace(0, 1, BINS + 1)[1:-1]))
    before, after = (_shares(scores, edges) for scores in (reference, recent))
    return float(((after - before) * np.log(after / before)).sum())


def _shares(scores: Scores, edges: Scores) -> Scores:
    counts = np.bincount(np.searchsorted(edges, scores, side="left"), minlength=len(edges) + 1) + 0.5
    return np.asarray(counts / counts.sum())
