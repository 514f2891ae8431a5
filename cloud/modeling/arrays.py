"""Array types and the small numeric functions that several modules share; numpy only."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def softmax(logits: Floats) -> Floats:
    """Turn logits `[N, K]` into probabilities `[N, K]`."""
    # Without the shift by the row's maximum, logits above about 700 overflow to infinity.
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def cross_entropy(probabilities: Floats, targets: Floats) -> float:
    """Return the mean negative log-likelihood of target distributions `[N, K]`."""
    # Clipped, so that one confident mistake is expensive but does not make the mean infinite.
    return float(-(targets * np.log(probabilities.clip(1e-12))).sum(axis=1).mean())


def effective_sample_size(weights: Floats) -> float:
    """Return the number of equally weighted examples that carry the same information as `weights` `[N]`.

    Source: Kish, Survey Sampling (1965).
    """
    return float(weights.sum() ** 2 / (weights @ weights))
