"""Metrics of a model from its predictions and the true labels; plain functions."""

from collections.abc import Sequence

import msgspec
import numpy as np

from cloud.modeling.arrays import Bools, Floats, Ints, softmax

CALIBRATION_BINS = 15
_Z = 1.959964  # the normal distribution's 97.5 % quantile


class Metrics(msgspec.Struct, frozen=True):
    """Metrics of a model on photos that it was not trained on.

    Attributes:
        photos: number of photos.
        accuracy: share of correct answers.
        accuracy_low: lower end of its 95 % Wilson interval.
        accuracy_high: upper end.
        recall: by class, for classes that have photos.
        confusion: `[truth][answer]` counts, in the order of the classes.
        calibration_error: expected calibration error over 15 bins, in [0, 1].
        mean_confidence: mean probability of the answers.
    """

    photos: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    recall: dict[str, float]
    confusion: list[list[int]]
    calibration_error: float
    mean_confidence: float


def measure(probabilities: Floats, truth: Ints, classes: Sequence[str]) -> Metrics:
    """Compute the metrics of answers.

    Args:
        probabilities: `[N, K]`, N at least 1.
        truth: `[N]`, in [0, K).
        classes: K names.
    """
    answers = probabilities.argmax(axis=1)
    confusion = confusion_matrix(truth, answers, len(classes))
    correct = int(np.trace(confusion))
    low, high = wilson_interval(correct, len(truth))
    totals = confusion.sum(axis=1)
    return Metrics(
        photos=len(truth),
        accuracy=correct / len(truth),
        accuracy_low=low,
        accuracy_high=high,
        recall={n: float(confusion[i, i] / totals[i]) for i, n in enumerate(classes) if totals[i]},
        confusion=confusion.tolist(),
        calibration_error=calibration_error(probabilities.max(axis=1), answers == truth),
        mean_confidence=float(probabilities.max(axis=1).mean()),
    )


def wilson_interval(successes: float, trials: float, z: float = _Z) -> tuple[float, float]:
    """Return the Wilson interval of a share, at 95 % confidence by default.

    Args:
        successes: in [0, trials].
        trials: at least 1; the effective sample size if the trials have weights.
        z: quantile of the normal distribution, for another confidence.

    Returns:
        Lower and upper bound, in [0, 1].

    Source: Wilson, Probable inference, the law of succession, and statistical inference (1927).
    """
    # The formula and not scipy.stats.binomtest: effective sample sizes are not integers.
    share = successes / trials
    spread = z * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    centre, scale = share + z**2 / (2 * trials), 1 + z**2 / trials
    return max(0.0, float((centre - spread) / scale)), min(1.0, float((centre + spread) / scale))


def p_words(p_value: float) -> str:
    """Return a p-value as it is printed: three decimals, and `p < 0.001` below."""
    return f"p = {p_value:.3f}" if p_value >= 0.0005 else "p < 0.001"  # noqa: PLR2004  # what rounds to 0.001


def confusion_matrix(truth: Ints, answers: Ints, classes: int) -> Ints:
    """Count answers: `[truth, answer]`, in the order of the classes."""
    counts = np.bincount(truth * classes + answers, minlength=classes**2)
    return counts.reshape(classes, classes)


def calibration_errors(logits: Floats, truth: Ints, temperature: float) -> tuple[float | None, float | None]:
    """Return the calibration error without the temperature and with it; None, None without photos.

    Args:
        logits: `[N, K]`.
        truth: `[N]`, in [0, K).
        temperature: divides the logits.
    """
    if len(truth) == 0:
        return None, None
    correct = logits.argmax(axis=1) == truth  # a temperature changes no ranking
    before, after = (
        calibration_error(softmax(logits / divisor).max(axis=1), correct) for divisor in (1.0, temperature)
    )
    return before, after


def calibration_error(confidence: Floats, correct: Bools) -> float:
    """Return the expected calibration error: mean distance of confidence and accuracy over equally wide bins.

    Args:
        confidence: `[N]`, in [0, 1].
        correct: `[N]`.

    Source: Guo et al., On Calibration of Modern Neural Networks (2017).
    """
    # Absolute values after the sums: the surplus may cancel within a bin, but not between bins.
    return float(np.abs(_surplus(confidence, correct)).sum() / len(confidence))


def overconfidence(confidence: Floats, correct: Bools) -> float:
    """Return the part of the expected calibration error by which confidence exceeds accuracy.

    Args:
        confidence: `[N]`, in [0, 1].
        correct: `[N]`.
    """
    return float(_surplus(confidence, correct).clip(0).sum() / len(confidence))


def _surplus(confidence: Floats, correct: Bools) -> Floats:
    """Return confidence less correct answers, summed over the photos of each bin."""
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    return np.bincount(bins, weights=confidence - correct, minlength=CALIBRATION_BINS).astype(np.float64)


def points(share: float) -> str:
    """Return a change of a share in percentage points, with its sign."""
    return f"{100 * share:+.1f}"


def significant(p_values: dict[str, float], level: float) -> list[str]:
    """Return the names whose p-value is significant among all of them, smallest first (Holm's method).

    Args:
        p_values: By name.
        level: Largest probability that any name is returned by chance.
    """
    found: list[str] = []
    for tested, (p_value, name) in enumerate(sorted((p, name) for name, p in p_values.items())):
        if p_value > level / (len(p_values) - tested):
            break
        found.append(name)
    return found
