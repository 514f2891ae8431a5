"""Weighted accuracy of model versions from audited photos, and the rollback test. No I/O."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from cloud.evaluation.metrics import wilson_interval
from cloud.modeling.arrays import Floats, effective_sample_size

MIN_AUDITS = 20
"""Effective sample size from which a champion's accuracy is used; a challenger needs no minimum."""
RECENT_DAYS = 14
"""Days before a rollout whose audits of the champion are added if there are too few since it began."""
MIN_INCLUSION = 0.001
"""Least probability of a draw that is believed: else the photos of one false edge outweigh a fleet's."""
ROLLBACK_P_VALUE = 0.001
"""One-sided p-value below which the challenger is rolled back."""

_ACCURACY_GRID = (np.arange(2000) + 0.5) / 2000  # midpoints: both logarithms below are finite


def sampling_weight(inclusion: float | None) -> float:
    """Return the weight of an audited photo: one over the probability that it was drawn.

    Args:
        inclusion: That probability, as the edge says; None or 0 if unknown, then the weight is 1, the least
            possible. Below `MIN_INCLUSION` it is taken for that.
    """
    return 1 / max(inclusion, MIN_INCLUSION) if inclusion else 1.0


@dataclass(frozen=True, slots=True)
class AuditStats:
    """A version's answers to randomly drawn photos, compared with human labels.

    Attributes:
        correct_weights: Sampling weights of the photos that it answered correctly.
        wrong_weights: Sampling weights of the others.
    """

    correct_weights: tuple[float, ...] = ()
    wrong_weights: tuple[float, ...] = ()

    @classmethod
    def from_outcomes(cls, outcomes: Iterable[tuple[bool, float]]) -> "AuditStats":
        """Collect pairs of whether an answer is correct and the photo's sampling weight."""
        weights: tuple[list[float], list[float]] = ([], [])
        for correct, weight in outcomes:
            weights[correct].append(weight)
        wrong, right = weights
        return cls(tuple(right), tuple(wrong))

    def __add__(self, other: "AuditStats") -> "AuditStats":
        """Combine two sets of audits of one version."""
        return AuditStats(
            self.correct_weights + other.correct_weights, self.wrong_weights + other.wrong_weights
        )

    @property
    def photos(self) -> int:
        """Number of audited photos."""
        return len(self.correct_weights) + len(self.wrong_weights)

    @property
    def correct(self) -> int:
        """Number of audited photos that were answered correctly."""
        return len(self.correct_weights)

    @property
    def accuracy(self) -> float:
        """Weighted share of correct answers: an estimate for all photos, not only the audited ones.

        Raises:
            ZeroDivisionError: No photo was audited.
        """
        correct = sum(self.correct_weights)
        return correct / (correct + sum(self.wrong_weights))

    @property
    def effective_size(self) -> float:
        """Effective sample size, 0 without photos."""
        if not self.photos:
            return 0.0
        # Rounded: 20 photos of weight 1 / 0.3 are to count as 20, not as 19.999999999999996.
        return round(effective_sample_size(np.array(self.correct_weights + self.wrong_weights)), 6)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the accuracy; needs a photo, as `accuracy` does."""
        return wilson_interval(self.accuracy * self.effective_size, self.effective_size)


@dataclass(frozen=True, slots=True)
class RolloutAudits:
    """Audits of both versions of a rollout.

    Attributes:
        challenger: Since the rollout began.
        champion: Since the rollout began.
        champion_before: The champion, in the `RECENT_DAYS` before that.
    """

    challenger: AuditStats = AuditStats()
    champion: AuditStats = AuditStats()
    champion_before: AuditStats = AuditStats()

    def reference(self) -> tuple[AuditStats, str]:
        """Return the champion's audits to compare the challenger with, and their period in words."""
        # Audits of the same days are preferred: drift then affects both versions alike.
        if self.champion.effective_size >= MIN_AUDITS:
            return self.champion, "since the trial began"
        return self.champion + self.champion_before, f"since {RECENT_DAYS} days before the trial"


def equal_accuracy_p_value(champion: AuditStats, challenger: AuditStats) -> float:
    """Return the one-sided p-value of "the challenger is as accurate as the champion".

    It is the probability that a version with the champion's accuracy gets no more photos right than the
    challenger did. No minimum number of photos is needed: six audits reject a version that gets nearly all
    wrong, a slightly worse one takes hundreds. A version without a mistake, or without an audit, is never
    rejected.

    False alarms: of equally accurate versions, tested after each of 200 audits, about 1 % ever fall below
    `ROLLBACK_P_VALUE`, and fewer than 2 % at any accuracy, share of the challenger and number of the
    champion's audits.

    Source: Clopper and Pearson, The use of confidence or fiducial limits (1934), the one-sided limit.
    """
    # The champion's accuracy has a Beta posterior over a uniform prior. The challenger's one-sided
    # Clopper-Pearson limit needs no prior: the binomial tail is a Beta distribution with one mistake fewer.
    one, other = _accuracy_density(champion), _accuracy_density(challenger, extra_mistakes=-1)
    # A cell that both share counts half, else equal versions would not have a p-value of about one half.
    return float(other @ (one.cumsum() - one / 2))


def _accuracy_density(audits: AuditStats, extra_mistakes: int = 0) -> Floats:
    """Return the probability of each accuracy on `_ACCURACY_GRID`, after that many more mistakes."""
    right = audits.accuracy * audits.effective_size if audits.photos else 0.0
    wrong = audits.effective_size - right + extra_mistakes
    logarithm = right * np.log(_ACCURACY_GRID) + wrong * np.log1p(-_ACCURACY_GRID)
    density = np.exp(logarithm - logarithm.max())  # thousands of audits would underflow without the shift
    return np.asarray(density / density.sum())
