"""Accuracy by the number of labels, extrapolated to further ones.

Heads are fitted on parts of the labelled photos' embeddings and tested on held-out folds; a power law through
the error rates is extrapolated. Plain functions, numpy and scikit-learn only.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cloud.evaluation.metrics import wilson_interval
from cloud.modeling.arrays import Bools, Floats, Ints
from cloud.modeling.kernels import principal_components
from cloud.modeling.linear_head import fit_head

MIN_LABELS = 30
"""Fewer labels give no curve: a fold of six photos proves nothing."""
MAX_LABELS = 1500
"""More labelled photos are represented by a random part of them, which bounds the time."""
_MIN_PER_CLASS = 5
_FOLDS, _REPEATS, _POINTS = 5, 3, 5
_DIMENSIONS = 64
_RESAMPLES = 400
_LEVEL = 0.9
_NEXT = 20


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Accuracy with a number of labels.

    Attributes:
        labels: number that the heads were trained on.
        accuracy: mean over the held-out photos and the repetitions.
        low: lower end of the 95 % Wilson interval for the number of held-out photos.
        high: upper end.
    """

    labels: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Share:
    """How many of a group's held-out photos are answered correctly.

    Attributes:
        photos: their number.
        accuracy: share of them.
        low: lower end of its 95 % Wilson interval.
        high: upper end.
    """

    photos: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Gain:
    """What further labels will probably bring, by extrapolating the curve.

    Attributes:
        labels: how many further ones.
        expected: gain of accuracy, a share; the median of the resamples.
        low: lower end of the interval that holds 90 % of the resamples.
        high: upper end.
    """

    labels: int
    expected: float
    low: float
    high: float

    @property
    def is_narrow(self) -> bool:
        """Whether the interval is narrow enough to act on: not wider than four points."""
        return self.high - self.low <= 0.04  # noqa: PLR2004 - four points


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """The curve with what follows from it.

    Attributes:
        labels: labelled photos that it was computed from, those of rare classes left out.
        points: by increasing number of labels; empty if there are too few.
        gain: of the next labels, None if there are too few labels to estimate it.
        by_class: recall on held-out photos, by class.
        by_group: accuracy on held-out photos, by group, for example by device.
        rare: classes with too few labels to be in the curve.
    """

    labels: int
    points: Sequence[CurvePoint] = ()
    gain: Gain | None = None
    by_class: dict[str, Share] = field(default_factory=dict)
    by_group: dict[str, Share] = field(default_factory=dict)
    rare: Sequence[str] = ()


def learning_curve(
    vectors: NDArray[np.floating],
    labels: Sequence[str],
    groups: Sequence[str],
    *,
    seed: int,
    ahead: int = _NEXT,
) -> LearningCurve:
    """Compute the learning curve of labelled photos.

    Args:
        vectors: embeddings `[N, D]`, all of one backbone.
        labels: N class names.
        groups: N names, for `by_group`.
        seed: of folds, subsets and resamples.
        ahead: for how many further labels to estimate the gain.
    """
    counts = Counter(labels)
    rare = sorted(name for name, count in counts.items() if count < _MIN_PER_CLASS)
    usable = [at for at, label in enumerate(labels) if label not in rare]
    total = len(usable)
    if total < MIN_LABELS or len(counts) - len(rare) < 2:  # noqa: PLR2004 - fewer than two classes
        return LearningCurve(total, rare=rare)
    generator = np.random.default_rng(seed)
    if total > MAX_LABELS:
        usable = sorted(generator.choice(usable, MAX_LABELS, replace=False).tolist())
    classes, truth = np.unique([labels[at] for at in usable], return_inverse=True)
    reduced = principal_components(np.asarray(vectors)[usable], _DIMENSIONS)
    sizes = _sizes(len(usable), len(classes))
    correct = _held_out(reduced, truth, sizes, generator)
    return LearningCurve(
        total,
        points=[_point(size, correct[:, row]) for row, size in enumerate(sizes)],
        gain=_gain(correct, sizes, total, ahead, generator),
        by_class=_shares(correct[:, -1], [str(classes[one]) for one in truth]),
        by_group=_shares(correct[:, -1], [groups[at] for at in usable]),
        rare=rare,
    )


def power_law(sizes: Floats, errors: Floats) -> tuple[float, float]:
    """Fit `error = a * size ** -b` by least squares in the logarithm, with b at least 0.

    Args:
        sizes: `[S]`, above 0.
        errors: `[S]`, above 0.

    Returns:
        a and b.

    Source: Hestness et al., Deep learning scaling is predictable, empirically (2017): error rates follow a
    power law of the number of examples between the first few and a floor.
    """
    across, up = np.log(sizes), np.log(errors)
    centred = across - across.mean()
    exponent = max(0.0, -float(centred @ up) / float(centred @ centred))
    return float(np.exp(up.mean() + exponent * across.mean())), exponent


def _sizes(photos: int, classes: int) -> list[int]:
    """Return the numbers of labels, in equal ratios, up to what four folds of five have."""
    largest = photos - -(-photos // _FOLDS)
    smallest = min(largest, max(3 * classes, 10))
    return sorted({round(one) for one in np.geomspace(smallest, largest, _POINTS)})


def _held_out(
    vectors: NDArray[np.float32], truth: Ints, sizes: Sequence[int], generator: np.random.Generator
) -> Bools:
    """Return whether each held-out photo is answered correctly: `[repeats, sizes, N]`."""
    correct = np.zeros((_REPEATS, len(sizes), len(truth)), bool)
    for repeat in range(_REPEATS):
        folds = np.array_split(generator.permutation(len(truth)), _FOLDS)
        for number, tested in enumerate(folds):
            rest = np.concatenate([fold for at, fold in enumerate(folds) if at != number])
            for row, size in enumerate(sizes):
                answers = _answers(vectors, truth, rest[: min(size, len(rest))], tested)
                correct[repeat, row, tested] = answers == truth[tested]
    return correct


def _answers(vectors: NDArray[np.float32], truth: Ints, trained: Ints, tested: Ints) -> Ints:
    present, numbers = np.unique(truth[trained], return_inverse=True)
    if len(present) == 1:
        return np.full(len(tested), present[0])
    head = fit_head(vectors[trained], numbers, np.ones(len(trained)), len(present))
    return np.asarray(present[head.logits(vectors[tested]).argmax(axis=1)])


def _point(size: int, correct: Bools) -> CurvePoint:
    accuracy, photos = float(correct.mean()), correct.shape[1]
    # Repetitions test the same photos again and add no evidence, so the interval is of the photos.
    low, high = wilson_interval(accuracy * photos, photos)
    return CurvePoint(size, accuracy, low, high)


def _gain(
    correct: Bools, sizes: Sequence[int], total: int, ahead: int, generator: np.random.Generator
) -> Gain | None:
    """Resample photos and repetitions, extrapolate each resample, and return the spread of the gains."""
    if len(sizes) < 3:  # noqa: PLR2004 - a line through two points has no evidence
        return None
    gains = []
    for _ in range(_RESAMPLES):
        photos = generator.integers(correct.shape[2], size=correct.shape[2])
        repeats = generator.integers(len(correct), size=len(correct))
        wrong = 1 - correct[repeats][:, :, photos].mean(axis=(0, 2))
        # Half a photo: an error rate of 0 has no logarithm, and a few photos do not prove it.
        scale, exponent = power_law(np.array(sizes, float), wrong + 0.5 / correct.shape[2])
        gains.append(scale * (total**-exponent - (total + ahead) ** -exponent))
    low, middle, high = np.quantile(gains, [(1 - _LEVEL) / 2, 0.5, (1 + _LEVEL) / 2])
    return Gain(ahead, float(middle), float(low), float(high))


def _shares(correct: Bools, names: Sequence[str]) -> dict[str, Share]:
    found = {}
    for name in sorted(set(names)):
        inside = correct[:, [one == name for one in names]]
        accuracy, photos = float(inside.mean()), inside.shape[1]
        found[name] = Share(photos, accuracy, *wilson_interval(accuracy * photos, photos))
    return found
