"""A head that weighs the main directions of the embeddings alike, regardless of their variance.

Where the classes differ in directions of small variance, as digits of several meters do, such a head needs
fewer labels. Where a network separates the classes already, it is worse: held-out labels decide.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from cloud.modeling.arrays import Floats, Ints
from cloud.modeling.blas_threads import one_blas_thread
from cloud.modeling.linear_head import Head, fit_head

DIRECTIONS = 100
"""Principal components that are used; the rest of the embedding is noise to this head."""
_SHARE = 2 / 3
"""Most directions for each photo: the last ones of a small sample are chance."""
_POWER = 0.8
"""Of the standard deviation that divides a component: 0 leaves it as it is, 1 makes all equal."""
_MIN_DEVIATION = 1e-6


def fit_whitened_head(
    embeddings: NDArray[np.floating],
    labels: Ints,
    weights: Floats,
    classes: int,
    *,
    measured_on: NDArray[np.floating],
) -> Head:
    """Fit a head on the whitened principal components of the embeddings. Deterministic.

    Args:
        embeddings: `[N, D]`.
        labels: `[N]`, in [0, classes), each at least once.
        weights: `[N]`, above 0; only their ratios count.
        classes: K, at least 2.
        measured_on: embeddings `[M, D]` whose principal components are used, M at least 3.

    Returns:
        The head, for the embeddings as they are: whitening is a linear map, and part of the kernel.

    Raises:
        ValueError: A class has no example.
    """
    mean, directions = whitening(measured_on)
    head = fit_head((embeddings - mean) @ directions, labels, weights, classes)
    kernel = directions @ head.kernel
    return Head(kernel, head.bias - mean @ kernel)


def whitening(embeddings: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Return the mean `[D]` of embeddings `[M, D]`, M at least 3, and their scaled directions `[D, d]`."""
    count = min(DIRECTIONS, int(_SHARE * len(embeddings)), embeddings.shape[1])
    # One thread: see `fit_head`. Equal photos have no variance to be divided by.
    with one_blas_thread(), np.errstate(invalid="ignore"):
        found = PCA(count, random_state=0).fit(embeddings.astype(np.float64))
    deviations = np.sqrt(found.explained_variance_).clip(_MIN_DEVIATION)
    return found.mean_, found.components_.T / deviations**_POWER
