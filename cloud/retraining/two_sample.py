"""Test whether two sets of embeddings come from one distribution: the kernel two-sample test (MMD).

It says that photos look different, not that answers are wrong: only labels measure the accuracy.
Source: Gretton et al., A Kernel Two-Sample Test (JMLR 2012); the p-value is by permutation, so that it holds
for any distribution and any number of photos.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cloud.modeling.arrays import Floats
from cloud.modeling.kernels import gaussian, median_distance

PERMUTATIONS = 10_000
"""Largest number of permutations: the smallest p-value is a 10 000th."""
_BLOCK = 500
_ENOUGH = 20
"""Permutations that exceed the statistic after which no more are drawn: the p-value is far from any limit."""


class DriftTest(NamedTuple):
    """Outcome of one test.

    Attributes:
        statistic: Squared maximum mean discrepancy, at least 0.
        p_value: Probability of such a statistic or a larger one without drift.
    """

    statistic: float
    p_value: float


def mmd_test(reference: NDArray[np.floating], recent: NDArray[np.floating], *, seed: int) -> DriftTest:
    """Compare two sets of embeddings. Takes 4 (N + M)² bytes.

    Args:
        reference: `[N, D]`, N at least 1.
        recent: `[M, D]`, M at least 1.
        seed: Of the permutations; equal input and seed give equal results.
    """
    together = np.concatenate([reference, recent])
    kernel = gaussian(together, together, median_distance(together)).astype(np.float64)
    weights = np.concatenate(
        [np.full(len(reference), 1 / len(reference)), np.full(len(recent), -1 / len(recent))]
    )
    statistic = float(weights @ kernel @ weights)
    return DriftTest(max(0.0, statistic), _p_value(kernel, weights, statistic, seed))


def _p_value(kernel: Floats, weights: Floats, statistic: float, seed: int) -> float:
    """Return the share of permutations whose statistic is as large, with the given order as one of them."""
    draw = np.random.default_rng(seed)
    exceeding = drawn = 0
    # A clear result needs few permutations: stop early where many exceed it (Besag and Clifford, 1991).
    while drawn < PERMUTATIONS and exceeding < _ENOUGH:
        permuted = draw.permuted(np.tile(weights, (_BLOCK, 1)), axis=1)
        # Without the tolerance, rounding would decide between equal statistics.
        exceeding += int((((permuted @ kernel) * permuted).sum(axis=1) >= statistic - 1e-12).sum())
        drawn += _BLOCK
    return (exceeding + 1) / (drawn + 1)
