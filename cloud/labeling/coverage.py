"""Choose photos that cover the embedding space, given what is labelled (MaxHerding).

Source: Bae, Noh and Sutherland, Generalized Coverage for More Robust Low-Budget Active Learning
(arXiv 2407.12212): the gain of a photo is the mean, over all photos, by which it raises the similarity to the
nearest labelled or chosen one.
"""

import numpy as np
from numpy.typing import NDArray

from cloud.modeling.arrays import Floats
from cloud.modeling.kernels import gaussian, median_distance

WIDTH = 0.5
"""Width of the Gaussian kernel, as a share of the median distance of two photos."""


class Coverage:
    """How well each photo is covered by the labelled and the chosen ones. Takes `4 N (N + M)` bytes.

    Args:
        embeddings: Of the photos to choose from, `[N, D]`.
        labelled: Of photos with labels, `[M, D]`; M may be 0.
        weights: How many photos each one stands for, `[N]`.
    """

    def __init__(
        self, embeddings: NDArray[np.floating], labelled: NDArray[np.floating], weights: Floats
    ) -> None:
        width = WIDTH * median_distance(embeddings)
        self._similarity = gaussian(embeddings, embeddings, width)
        self._weights = (weights / weights.sum()).astype(np.float32)
        self._covered = np.zeros(len(embeddings), np.float32)
        if len(labelled):
            self._covered = gaussian(embeddings, labelled, width).max(axis=1)
        self._gains: Floats | None = None

    def gains(self) -> Floats:
        """Return by how much each photo would raise the mean coverage, `[N]`, in [0, 1]."""
        if self._gains is None:
            missing = np.maximum(self._similarity - self._covered[:, None], 0)
            self._gains = np.asarray(self._weights @ missing, np.float64)
        return self._gains

    def add(self, position: int) -> None:
        """Count a photo as chosen."""
        self._covered = np.maximum(self._covered, self._similarity[:, position])
        self._gains = None
