"""TODO."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


Ints = NDArray[np.int64]


def softmax(logits: Floats) -> Floats:
    """Turn logits `[N, K]` into probabilities."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def cross_entropy(probabilities: Floats, targets: Floats) -> float:
    """Mean negative log-likelihood of target distributions `[N, K]`."""
    return float(-(targets * np.log(probabilities.clip(1e-12))).sum(axis=1).mean())
