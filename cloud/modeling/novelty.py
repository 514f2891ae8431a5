"""Novelty score: scaled cosine distance of an embedding to the nearest training embedding.

It detects photos that show none of the classes: the softmax stays confident about them. Plain numpy; the
exported graph computes the same.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloud.modeling.kernels import unit_length
from schemas.codec import content_id

MAX_PROTOTYPES = 512
THRESHOLD_PERCENTILE = 95.0
"""Percentile of the training photos' distances that is a novelty of 1: one known photo in 20 exceeds it."""

_MIN_SCALE = 1e-3  # reached if all training photos are alike
_NO_SCALE = 1e6  # a cosine distance is at most 2


@dataclass(frozen=True, slots=True)
class NoveltyModel:
    """Training embeddings to compare with.

    Attributes:
        prototypes: float32 `[M, D]`, embeddings of training photos at unit length.
        scale: cosine distance that is a novelty of 1, above 0.
    """

    prototypes: NDArray[np.float32]
    scale: float

    @classmethod
    def unknown(cls, dim: int) -> "NoveltyModel":
        """Return the model for embeddings of D numbers without any photo: every novelty is nearly 0."""
        return cls(np.eye(1, dim, dtype=np.float32), _NO_SCALE)


def fit_novelty(embeddings: NDArray[np.floating]) -> NoveltyModel:
    """Choose prototypes among the training photos, and the scale of their distances.

    Args:
        embeddings: `[N, D]` of all training photos, at least one.
    """
    units = unit_length(embeddings)
    # A random sample: to it, the photos outside are like new ones, so their distances are unbiased. The
    # sample that covers the photos best (greedy k-centre) was no better: docs/experiments.md.
    # By a hash of each: further photos replace few prototypes, so a release of another head stays small.
    drawn = sorted(range(len(units)), key=lambda photo: content_id(units[photo].tobytes()))
    chosen = np.sort(drawn[:MAX_PROTOTYPES])
    distances = 1.0 - units @ units[chosen].T
    distances[chosen, np.arange(len(chosen))] = np.inf  # a prototype is not its own neighbour
    nearest = distances.min(axis=1)
    known = nearest[np.isfinite(nearest)]  # a single photo has no neighbour
    scale = float(np.percentile(known, THRESHOLD_PERCENTILE)) if len(known) else 1.0
    return NoveltyModel(units[chosen], max(scale, _MIN_SCALE))


def novelty_scores(model: NoveltyModel, embeddings: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the novelty of embeddings `[N, D]` as float32 `[N]`, at least 0; above 1 is novel."""
    # Rounding can make the cosine of a known photo slightly larger than 1.
    nearest = 1.0 - (unit_length(embeddings) @ model.prototypes.T).max(axis=1)
    return np.asarray(nearest.clip(0.0) / model.scale, dtype=np.float32)
