"""Lengths, distances and the Gaussian kernel of embeddings; numpy only."""

from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Similarities = NDArray[np.float32]
Embeddings = NDArray[np.floating]

_MEDIAN_OF = 512
"""Photos whose distances give the median: an estimate whose cost does not grow with their number."""


_MAX_COMPONENT = 1e6
_MIN_NORM = 1e-6  # an embedding may be all zeros


def is_usable(embedding: Embeddings) -> bool:
    """Return whether an embedding `[D]` is a number in each component, and none so large that sums overflow.

    Embeddings come from outside: a single NaN would make every similarity to it, and every mean, a NaN.
    """
    return bool(len(embedding) and (np.abs(embedding) <= _MAX_COMPONENT).all())


def usable(embeddings: Embeddings) -> NDArray[np.bool_]:
    """Return for each of some embeddings `[N, D]` whether `is_usable` holds."""
    return np.asarray((np.abs(embeddings) <= _MAX_COMPONENT).all(axis=1))


def most_common_length(embeddings: Iterable[Embeddings]) -> int:
    """Return the length of most of the embeddings, at least one; of equally many the larger one."""
    lengths = Counter(len(embedding) for embedding in embeddings)
    return max(lengths, key=lambda length: (lengths[length], length))


def unit_length(embeddings: Embeddings) -> NDArray[np.float32]:
    """Divide embeddings `[N, D]` by their lengths."""
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.asarray(embeddings / np.maximum(lengths, _MIN_NORM), dtype=np.float32)


def principal_components(embeddings: Embeddings, most: int) -> NDArray[np.float32]:
    """Return unit-length embeddings `[N, D]` in their largest principal components, `[N, C]`.

    A head is fitted to them in milliseconds, and little is lost: networks have some dozens that matter.

    Args:
        embeddings: At least one.
        most: Largest C.
    """
    unit = unit_length(embeddings)
    centred = unit - unit.mean(axis=0)
    _, _, components = np.linalg.svd(centred, full_matrices=False)
    return np.asarray(centred @ components[:most].T, np.float32)


def gaussian(left: Embeddings, right: Embeddings, width: float) -> Similarities:
    """Return the Gaussian kernel of embeddings `[L, D]` and `[R, D]`: `[L, R]`, in [0, 1].

    Args:
        left: Embeddings.
        right: Embeddings of the same length.
        width: Standard deviation of the kernel, in units of the embeddings' distances, above 0.
    """
    return np.asarray(np.exp(-_squared_distances(left, right) / np.float32(2 * width**2)))


def median_distance(embeddings: Embeddings) -> float:
    """Return the median distance of two of the embeddings `[N, D]`; 1 if it is 0 or there are no two."""
    some = embeddings[:: max(1, len(embeddings) // _MEDIAN_OF)]
    distances = np.sqrt(_squared_distances(some, some)[np.triu_indices(len(some), 1)])
    # A width of 0 would divide by 0; where half of all photos are equal, any width separates the others.
    return (float(np.median(distances)) or 1.0) if len(distances) else 1.0


def _squared_distances(left: Embeddings, right: Embeddings) -> Similarities:
    one, other = (np.ascontiguousarray(each, np.float32) for each in (left, right))
    squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1) - 2 * one @ other.T
    # Rounding can make the distance of equal embeddings negative.
    return np.asarray(np.maximum(squares, 0), np.float32)
