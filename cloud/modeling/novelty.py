"""How unlike all that a model was trained on a photo is: the distance of its embedding to the nearest photo.

A softmax stays sure of itself on photos of neither class; this distance tells them. Plain numpy; the same
calculation is in the served graph.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_PROTOTYPES = 512
THRESHOLD_PERCENTILE = 95.0
"""Of the training photos' own distances: beyond it a photo is novel, and so is one known photo in 20."""

_LEAST_SCALE = 1e-3  # where all training photos are alike
_LEAST_NORM = 1e-6  # of an embedding that is all zeros


@dataclass(frozen=True, slots=True)
class Novelty:
    """What a photo is compared with.

    Attributes:
        prototypes: float32 `[M, D]`, embeddings of training photos, each of length 1.
        scale: the distance that is a novelty of 1, above 0.
    """

    prototypes: NDArray[np.float32]
    scale: float


def fit_novelty(embeddings: NDArray[np.floating], seed: int) -> Novelty:
    """Take prototypes from the training photos, and their usual distance to each other.

    Beyond `MOST_PROTOTYPES` a random sample is taken: the photos outside of it are to it what new ones
    are, so that their distances are an honest measure. (The sample that covers the photos best, by
    greedy k-centre, told foreign photos no better; docs/experiments.md has the figures.)

    Args:
        embeddings: `[N, D]` of all training photos, at least one.
        seed: of the sample.
    """
    units = _unit(embeddings)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(units))[:MOST_PROTOTYPES])
    distances = 1.0 - units @ units[chosen].T
    distances[chosen, np.arange(len(chosen))] = np.inf  # none is its own neighbour
    nearest = distances.min(axis=1)
    known = nearest[np.isfinite(nearest)]  # a single photo has no neighbour
    scale = float(np.percentile(known, THRESHOLD_PERCENTILE)) if len(known) else 1.0
    return Novelty(units[chosen], max(scale, _LEAST_SCALE))


def novelty_of(model: Novelty, embeddings: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the novelty of embeddings `[N, D]` as float32 `[N]`: at least 0; above 1 it is novel."""
    nearest = 1.0 - (_unit(embeddings) @ model.prototypes.T).max(axis=1)
    return np.asarray(nearest.clip(0.0) / model.scale, dtype=np.float32)


def _unit(embeddings: NDArray[np.floating]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.asarray(embeddings / np.maximum(lengths, _LEAST_NORM), dtype=np.float32)
