"""Compare two versions on the same photos: accuracy, McNemar's test and bootstrap intervals. No I/O.

The tests are paired: only photos that exactly one of the versions gets right count.
"""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np

from cloud.evaluation.recall_losses import SIGNIFICANCE
from cloud.modeling.arrays import Bools, Floats, Ints

RESAMPLES = 2000
_BATCH_RESAMPLES = 200  # bounds the bootstrap's memory: scipy gathers a whole batch of resamples at once


@dataclass(frozen=True, slots=True)
class PairedPredictions:
    """Predictions of champion and challenger for the same photos.

    Attributes:
        champion: probabilities `[N, K]`.
        challenger: probabilities `[N, K]`.
        truth: `[N]`, in [0, K).
        weights: `[N]`, sampling weights: 1, or 1 / inclusion probability.
    """

    champion: Floats
    challenger: Floats
    truth: Ints
    weights: Floats

    @property
    def correct(self) -> tuple[Bools, Bools]:
        """Masks `[N]` of the photos that the champion and the challenger get right."""
        return self.champion.argmax(axis=1) == self.truth, self.challenger.argmax(axis=1) == self.truth


class Comparison(msgspec.Struct, frozen=True):
    """Paired comparison of champion and challenger on the same photos.

    Attributes:
        photos: number of photos.
        champion: the champion's weighted accuracy.
        challenger: the challenger's weighted accuracy.
        only_champion: photos that the champion alone gets right.
        only_challenger: photos that the challenger alone gets right.
        p_value: of McNemar's exact test, two-sided.
        low: lower end of the 95 % bootstrap interval of the gain in accuracy.
        high: its upper end.
    """

    photos: int
    champion: float
    challenger: float
    only_champion: int
    only_challenger: int
    p_value: float
    low: float
    high: float

    @property
    def gain(self) -> float:
        """The challenger's accuracy minus the champion's."""
        return self.challenger - self.champion


def join(one: PairedPredictions | None, other: PairedPredictions | None) -> PairedPredictions | None:
    """Join photos of two sets with the same classes; each counts once, however it was drawn."""
    pairs = [pair for pair in (one, other) if pair is not None]
    if not pairs:
        return None
    # The audit slice may have labels that no version knows, in columns behind the common ones.
    width = max(pair.champion.shape[1] for pair in pairs)

    def rows(predictions: list[Floats]) -> Floats:
        return np.concatenate([np.pad(some, ((0, 0), (0, width - some.shape[1]))) for some in predictions])

    truth = np.concatenate([pair.truth for pair in pairs])
    champion, challenger = rows([p.champion for p in pairs]), rows([p.challenger for p in pairs])
    return PairedPredictions(champion, challenger, truth, np.ones(len(truth)))


def compare(pair: PairedPredictions, seed: int = 0) -> Comparison:
    """Compare two versions on the same photos.

    Args:
        pair: predictions for at least one photo.
        seed: of the bootstrap.

    Sources: McNemar, Note on the sampling error of the difference between correlated proportions (1947), in
    its exact form; Efron, Bootstrap methods (1979), percentile interval over resampled photos.
    """
    champion, challenger = pair.correct
    weights = pair.weights / pair.weights.sum()

    def mean_gain(gains: Floats, weights: Floats, axis: int = -1) -> Floats:
        return np.asarray((gains * weights).sum(axis) / weights.sum(axis))

    gains = challenger.astype(np.float64) - champion
    low, high = bootstrap_interval(mean_gain, gains, weights, seed=seed, vectorized=True)
    only_champion, only_challenger = int((champion & ~challenger).sum()), int((challenger & ~champion).sum())
    return Comparison(
        photos=len(gains),
        champion=float(champion @ weights),
        challenger=float(challenger @ weights),
        only_champion=only_champion,
        only_challenger=only_challenger,
        p_value=mcnemar(only_champion, only_challenger),
        low=low,
        high=high,
    )


def mcnemar(only_one: int, only_other: int) -> float:
    """Return the two-sided p-value of McNemar's exact test.

    Args:
        only_one: photos that only one of two versions gets right.
        only_other: photos that only the other one gets right.
    """
    if only_one == only_other == 0:
        return 1.0  # a binomial test needs at least one trial
    from scipy.stats import binomtest  # noqa: PLC0415 - a second to load, and cards import this module

    return float(binomtest(only_one, only_one + only_other).pvalue)


def bootstrap_interval(
    statistic: Callable[..., Floats | float], *samples: Floats | Bools, seed: int, vectorized: bool
) -> tuple[float, float]:
    """Return the 95 % percentile interval of a statistic when photos are resampled.

    Args:
        statistic: of the samples; if vectorized, along their last axis.
        samples: each `[N]`, all of the same photos, N at least 1.
        seed: of the resampling.
        vectorized: whether the statistic takes `axis`.
    """
    if len(samples[0]) == 1:  # scipy refuses a single observation; every resample is that photo
        only = float(statistic(*samples))
        return only, only
    from scipy.stats import bootstrap  # noqa: PLC0415 - as above

    interval = bootstrap(
        samples,
        statistic,
        n_resamples=RESAMPLES,
        batch=_BATCH_RESAMPLES,
        vectorized=vectorized,
        paired=True,
        confidence_level=1 - SIGNIFICANCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def gain_chance(comparison: Comparison) -> float:
    """Return the probability of at least this many gains if both versions were equally good, one-sided."""
    if comparison.gain <= 0:
        return 1.0  # no gain; and a binomial test needs at least one trial
    from scipy.stats import binomtest  # noqa: PLC0415 - as above

    disagreements = comparison.only_champion + comparison.only_challenger
    return float(binomtest(comparison.only_challenger, disagreements, alternative="greater").pvalue)


def lowest_gain(gains: Floats, *, chance: float, seed: int) -> float:
    """Return the gain in accuracy that the true one falls below with a probability, by the bootstrap.

    Args:
        gains: `[N]`, 1 where the challenger alone is right, -1 where the champion alone is, else 0.
        chance: the probability, in (0, 1).
        seed: of the resampling.
    """
    counts = [int((gains == value).sum()) for value in (-1, 0, 1)]
    # Resampled photos have three kinds only: their numbers are multinomial.
    drawn = np.random.default_rng(seed).multinomial(len(gains), np.array(counts) / len(gains), RESAMPLES)
    return float(np.quantile((drawn[:, 2] - drawn[:, 0]) / len(gains), chance))


def shown_worse(comparison: Comparison) -> bool:
    """Return True if the challenger is significantly worse, by McNemar's test or by the bootstrap."""
    # The bootstrap interval of a handful of photos is too narrow. It counts only if that many disagreements,
    # all in one direction, would be significant in McNemar's test.
    enough = mcnemar(0, comparison.only_champion + comparison.only_challenger) < SIGNIFICANCE
    tested = comparison.p_value < SIGNIFICANCE and comparison.only_champion > comparison.only_challenger
    # The weighted gain decides the direction: on the audit slice, counts of photos alone may contradict it.
    return comparison.gain < 0 and (tested or (comparison.high < 0 and enough))


def shown_better(comparison: Comparison) -> bool:
    """Return True if the challenger is significantly better, by McNemar's test and by the bootstrap."""
    return comparison.p_value < SIGNIFICANCE and comparison.gain > 0 and comparison.low > 0
