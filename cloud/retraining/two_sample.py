"""Test whether two sets of embeddings come from one distribution: the kernel two-sample test (MMD).

It shows that photos look different, not that answers are wrong: only labels measure the accuracy.
Source: Gretton et al., A Kernel Two-Sample Test (JMLR 2012); the p-value is by permutation, so that it holds
for any distribution and any number of photos.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cloud.modeling.arrays import Floats, Ints
from cloud.modeling.kernels import gaussian, median_distance

PERMUTATIONS = 10_000
"""Number of permutations if nothing else is asked for: the smallest p-value is a 10 000th."""
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


class Side(NamedTuple):
    """Photos of one side of a comparison.

    Attributes:
        vectors: Embeddings `[N, D]`, N at least 1.
        strata: `[N]`, what the photos are compared within, such as their device; None: all with all.
    """

    vectors: NDArray[np.floating]
    strata: Sequence[str] | None = None


def mmd_test(reference: Side, recent: Side, *, seed: int, permutations: int = PERMUTATIONS) -> DriftTest:
    """Compare two sets of embeddings. Takes 4 (N + M)² bytes.

    Photos are compared with those of their own stratum, so that a device which sent more photos than before
    is no drift of the others. Strata that only one side has are left out: with no other, the p-value is 1.

    Args:
        reference: Earlier photos.
        recent: Others, with strata if the reference has them.
        seed: Of the permutations; equal input and seed give equal results.
        permutations: Largest number; the smallest p-value is one over this.
    """
    strata = _numbered(reference, recent)
    weights = _weights(strata, len(reference.vectors))
    if not weights.any():
        return DriftTest(0.0, 1.0)
    kernel = _kernel(reference, recent)
    statistic = float(weights @ kernel @ weights)
    permuted = _permuted_statistics(kernel, weights, strata, np.random.default_rng(seed))
    return DriftTest(max(0.0, statistic), _p_value(permuted, statistic, permutations))


def discrepancy(reference: Side, recent: Side) -> float:
    """Return the statistic of `mmd_test` less what chance alone gives on average: about 0 without drift."""
    strata = _numbered(reference, recent)
    weights, kernel = _weights(strata, len(reference.vectors)), _kernel(reference, recent)
    same = strata[:, None] == strata
    pairs = max(int(same.sum()) - len(strata), 1)  # of different photos: with itself each one has 1
    alike = (float(kernel[same].sum()) - len(strata)) / pairs
    return float(weights @ kernel @ weights - (1 - alike) * (weights @ weights))


def _kernel(reference: Side, recent: Side) -> Floats:
    together = np.concatenate([reference.vectors, recent.vectors])
    return gaussian(together, together, median_distance(together)).astype(np.float64)


def _numbered(reference: Side, recent: Side) -> Ints:
    """Return the number of each photo's stratum, the reference first."""
    if reference.strata is None or recent.strata is None:
        return np.zeros(len(reference.vectors) + len(recent.vectors), np.int64)
    _, numbers = np.unique([*reference.strata, *recent.strata], return_inverse=True)
    return numbers.ravel()


def _weights(strata: Ints, before: int) -> Floats:
    """Return what each photo counts: in each stratum, the mean of the reference less that of the others.

    A stratum is weighted by the harmonic mean of its two sides, so the smaller one limits it.

    Args:
        strata: `[N + M]`, the first N of the reference.
        before: N.
    """
    kinds = int(strata.max()) + 1
    earlier, later = (np.bincount(some, minlength=kinds) for some in (strata[:before], strata[before:]))
    told = earlier * later / np.maximum(earlier + later, 1)
    share = told / max(told.sum(), 1e-12)
    sides = share / np.maximum(earlier, 1), -share / np.maximum(later, 1)
    return np.concatenate([sides[0][strata[:before]], sides[1][strata[before:]]])


def _permuted_statistics(
    kernel: Floats, weights: Floats, strata: Ints, draw: np.random.Generator
) -> Iterator[Floats]:
    """Yield the statistics of permutations within the strata, `_BLOCK` at a time, without end."""
    members = [np.flatnonzero(strata == number) for number in range(int(strata.max()) + 1)]
    while True:
        permuted = np.tile(weights, (_BLOCK, 1))
        for at in members:
            permuted[:, at] = draw.permuted(permuted[:, at], axis=1)
        yield ((permuted @ kernel) * permuted).sum(axis=1)


def _p_value(permuted: Iterator[Floats], statistic: float, permutations: int) -> float:
    """Return the share of permutations whose statistic is as large, with the given order as one of them."""
    exceeding = drawn = 0
    # A clear result needs few permutations: stop early where many exceed it (Besag and Clifford, 1991).
    while drawn < permutations and exceeding < _ENOUGH:
        # Without the tolerance, rounding would decide between equal statistics.
        exceeding += int((next(permuted) >= statistic - 1e-12).sum())
        drawn += _BLOCK
    return (exceeding + 1) / (drawn + 1)
