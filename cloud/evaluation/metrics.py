"""How good a model is: plain functions from predictions and truth to figures."""

from collections.abc import Sequence

import msgspec
import numpy as np

from cloud.modeling.arrays import Floats, Ints, softmax

CALIBRATION_BINS = 15
_Z = 1.959964  # the normal distribution's 97.5 % quantile


class Metrics(msgspec.Struct, frozen=True):
    """Figures of a model on photos that it was not trained on.

    Attributes:
        photos: how many there were.
        accuracy: share of right answers.
        accuracy_low: lower end of its 95 % Wilson interval.
        accuracy_high: upper end.
        recall: per class that has photos, the share of its photos that were found.
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
    """Compare answers with the truth.

    Args:
        probabilities: `[N, K]`, N at least 1.
        truth: `[N]`, in [0, K).
        classes: K names.
    """
    answers = probabilities.argmax(axis=1)
    confusion = confusion_matrix(truth, answers, len(classes))
    right = int(np.trace(confusion))
    low, high = wilson_interval(right, len(truth))
    totals = confusion.sum(axis=1)
    return Metrics(
        photos=len(truth),
        accuracy=right / len(truth),
        accuracy_low=low,
        accuracy_high=high,
        recall={n: float(confusion[i, i] / totals[i]) for i, n in enumerate(classes) if totals[i]},
        confusion=confusion.tolist(),
        calibration_error=calibration_error(probabilities.max(axis=1), answers == truth),
        mean_confidence=float(probabilities.max(axis=1).mean()),
    )


def wilson_interval(right: float, count: float, z: float = _Z) -> tuple[float, float]:
    """Bound a share at 95 % confidence.

    Args:
        right: successes, in [0, count].
        count: trials, at least 1; with weights, the effective number.
        z: quantile of the normal distribution, for another confidence.

    Returns:
        Lower and upper bound in [0, 1].

    Source: Wilson, Probable inference, the law of succession, and statistical inference (1927).
    """
    share = right / count
    spread = z * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    centre, scale = share + z**2 / (2 * count), 1 + z**2 / count
    return max(0.0, float((centre - spread) / scale)), min(1.0, float((centre + spread) / scale))


def confusion_matrix(truth: Ints, answers: Ints, classes: int) -> Ints:
    """Count answers by truth: `[truth, answer]`."""
    counts = np.bincount(truth * classes + answers, minlength=classes**2)
    return counts.reshape(classes, classes)


def calibrated(logits: Floats, truth: Ints, temperature: float) -> tuple[float | None, float | None]:
    """Return the calibration error without a temperature and with it; None twice without photos.

    Args:
        logits: `[N, K]`.
        truth: `[N]`, in [0, K).
        temperature: divides the logits.
    """
    if len(truth) == 0:
        return None, None
    right = logits.argmax(axis=1) == truth
    before, after = (
        calibration_error(softmax(logits / divisor).max(axis=1), right) for divisor in (1.0, temperature)
    )
    return before, after


def calibration_error(confidence: Floats, right: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> float:
    """Mean distance between confidence and accuracy over equally wide bins, weighted by their photos.

    Args:
        confidence: `[N]`, in [0, 1].
        right: `[N]`, whether the answer was right.

    Source: Guo et al., On Calibration of Modern Neural Networks (2017).
    """
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    surplus = np.bincount(bins, weights=confidence - right, minlength=CALIBRATION_BINS)
    return float(np.abs(surplus).sum() / len(confidence))
