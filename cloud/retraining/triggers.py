"""When a round starts: plain functions of drift signals and thresholds, without I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from cloud.dataset.example import MIN_CLASSES
from cloud.evaluation.audit_stats import AuditStats

Trigger: TypeAlias = Literal["labels", "samples", "drift", "audit", "hand"]
Scores: TypeAlias = NDArray[np.float64]

BINS = 10
MAX_NAMED = 5
"""Most devices that the words of an alarm name."""


class Triggers(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What starts a round."""

    labels: Annotated[int, Meta(ge=1, description="labels by people that are new since the last round")] = 20
    samples: Annotated[int, Meta(ge=1, description="samples that are new since the last round")] = 1_000
    stability: Annotated[
        float,
        Meta(gt=0, description="population stability index of the confidences above which it is drift"),
    ] = 0.25
    drift_samples: Annotated[
        int,
        Meta(
            ge=50,
            description="samples on each side of that comparison, from the lane audit if it has as many; with"
            " 200, chance alone may look like drift",
        ),
    ] = 400
    drift_photos: Annotated[
        int,
        Meta(
            ge=20, description="samples in a block whose embeddings are tested for drift against earlier ones"
        ),
    ] = 50
    drift_level: Annotated[
        float,
        Meta(
            gt=0.0001,
            le=0.1,
            description="probability of a drift alarm without drift, for each block of samples",
        ),
    ] = 0.005
    drift_labels: Annotated[
        int,
        Meta(
            ge=1, description="labels by people of photos since the drift that start a round after an alarm"
        ),
    ] = 10
    drift_audit_share: Annotated[
        float,
        Meta(
            ge=0, le=1, description="audit_share of the released nodes from a drift alarm to the next round"
        ),
    ] = 0.1
    audits: Annotated[
        int,
        Meta(ge=1, description="audited photos, labelled since the last round, that the accuracy needs"),
    ] = 30
    cool_down_s: Annotated[
        float, Meta(ge=0, le=1e7, description="pause after a round, finished or failed, in seconds")
    ] = 600.0


@dataclass(frozen=True, slots=True)
class DriftAlarm:
    """New photos whose embeddings differ significantly from those of earlier ones.

    Attributes:
        scopes: `NODE/DEVICE`, or `the fleet`, the clearest first.
        p_value: of the clearest one.
        photos: number of new photos that were tested.
        since_ms: arrival of the newest photo of the reference, UTC.
    """

    scopes: tuple[str, ...]
    p_value: float
    photos: int
    since_ms: int

    @property
    def words(self) -> str:
        """Return the alarm as a sentence."""
        shown = ", ".join(self.scopes[:MAX_NAMED]) + ("" if len(self.scopes) <= MAX_NAMED else " and others")
        return f"new photos of {shown} look different from earlier ones (p = {self.p_value:.2g})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """What changed since the last round.

    Attributes:
        labels: number of labels from people that the last round did not see.
        samples: number of samples that it did not see.
        reference: confidences of the version in service before it, `[n]`.
        recent: its confidences since, `[m]`.
        compared: which samples these are from: the lane audit, or all, which depend on the harvest policy.
        audit: of the version in service, by new labels.
        accuracy_low: lower limit of its accuracy on the gold set, None if it was not measured.
        last_round_s: seconds since the last round ended, None if there was none.
        alarm: the drift alarm, None if there is none.
        drift_labels: number of labels from people of photos that came after the alarm's reference.
        classes: number of classes that people have given to photos to train on, None if it was not counted.
    """

    labels: int = 0
    samples: int = 0
    reference: Scores = field(default_factory=lambda: np.zeros(0))
    recent: Scores = field(default_factory=lambda: np.zeros(0))
    compared: Literal["audits", "samples"] = "samples"
    audit: AuditStats = field(default_factory=AuditStats)
    accuracy_low: float | None = None
    last_round_s: float | None = None
    alarm: DriftAlarm | None = None
    drift_labels: int = 0
    classes: int | None = None

    @property
    def trainable(self) -> bool:
        """False while people have given too few classes for any training."""
        return self.classes is None or self.classes >= MIN_CLASSES


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a round starts.

    Attributes:
        trigger: which rule applied.
        words: the same in words.
        facts: the figures.
    """

    trigger: Trigger
    words: str
    facts: Mapping[str, int | float] = field(default_factory=dict)


def decide(signals: Signals, triggers: Triggers) -> Reason | None:
    """Decide whether a round starts now.

    Returns:
        The first reason that applies, in the order audit, drift, labels, samples; None if none applies,
        during the pause after a round, and while there are too few classes to train.
    """
    if not signals.trainable:
        return None  # the round would load TensorFlow and fail, again after each pause
    # Below 0 the wall clock was set back, and cannot measure the pause.
    if signals.last_round_s is not None and 0 <= signals.last_round_s < triggers.cool_down_s:
        return None
    # The most urgent reason first: it is the one that the event names.
    return (
        _audit(signals, triggers)
        or _alarm(signals, triggers)
        or _drift(signals, triggers)
        or _counts(signals, triggers)
    )


def labels_missing(signals: Signals, triggers: Triggers) -> int:
    """Return how many labels are missing until labels alone start the next round; 0 if there are enough."""
    missing = triggers.labels - signals.labels
    if signals.alarm is not None:
        missing = min(missing, triggers.drift_labels - signals.drift_labels)
    return max(0 if signals.trainable else 1, missing)


def _audit(signals: Signals, triggers: Triggers) -> Reason | None:
    """Check whether the version in service is significantly worse on new photos than on the gold set."""
    audit, low = signals.audit, signals.accuracy_low
    # The upper limit against the lower one: both estimates may be off by chance.
    if low is None or audit.photos < triggers.audits or audit.interval[1] >= low:
        return None
    words = f"{audit.accuracy:.1%} right in {audit.photos} audits, where the card says at least {low:.1%}"
    return Reason("audit", words, {"audits": audit.photos, "accuracy": audit.accuracy})


def _alarm(signals: Signals, triggers: Triggers) -> Reason | None:
    """Check whether there are labels to learn a drift from."""
    alarm, labels = signals.alarm, signals.drift_labels
    if alarm is None or labels < triggers.drift_labels:
        return None
    words = f"{alarm.words}, and {labels} of them are labelled"
    return Reason("drift", words, {"p_value": alarm.p_value, "photos": alarm.photos, "labels": labels})


def _drift(signals: Signals, triggers: Triggers) -> Reason | None:
    """Check whether the distribution of the confidences moved."""
    if min(len(signals.reference), len(signals.recent)) < triggers.drift_samples:
        return None
    index = stability_index(signals.reference, signals.recent)
    if index <= triggers.stability:
        return None
    latest = f"the latest {len(signals.recent)} {signals.compared}"
    words = f"the confidences of {latest} drifted: stability index {index:.2f}"
    return Reason("drift", words, {"stability_index": index, "samples": len(signals.recent)})


def _counts(signals: Signals, triggers: Triggers) -> Reason | None:
    """Check whether there are enough new labels or samples."""
    if signals.labels >= triggers.labels:
        return Reason("labels", f"{signals.labels} new labels by people", {"labels": signals.labels})
    if signals.samples >= triggers.samples:
        return Reason("samples", f"{signals.samples} new samples", {"samples": signals.samples})
    return None


def stability_index(reference: Scores, recent: Scores) -> float:
    """Return the population stability index of two samples over the deciles of the first one.

    Args:
        reference: `[n]`, n at least 1.
        recent: `[m]`, m at least 1.

    Returns:
        At least 0; above 0.25 is commonly called a shift.

    Source: Yurdakul and Naranjo, Statistical properties of the population stability index (2020).
    """
    # Equal scores give equal quantiles: unique edges leave fewer, wider bins.
    edges = np.unique(np.quantile(reference, np.linspace(0, 1, BINS + 1)[1:-1]))
    before, after = (_shares(scores, edges) for scores in (reference, recent))
    return float(((after - before) * np.log(after / before)).sum())


def _shares(scores: Scores, edges: Scores) -> Scores:
    # Half a sample in each bin: an empty one would make the index infinite.
    counts = np.bincount(np.searchsorted(edges, scores, side="left"), minlength=len(edges) + 1) + 0.5
    return np.asarray(counts / counts.sum())
