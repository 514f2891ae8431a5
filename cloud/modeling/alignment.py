"""Align embeddings of several cameras or times: standardise each group by its own photos, without labels."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloud.modeling.linear_head import Head

PRIOR_PHOTOS = 20.0
"""A group's moments are mixed with those of all photos as if this many photos had the latter."""
_MIN_SCALE = 1e-2
"""Added to each scale: a component that is constant in one group must not be blown up in another."""

Embeddings = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and scale of each component of a group's embeddings.

    Attributes:
        mean: `[D]`.
        scale: `[D]`, above 0.
        photos: Number of photos that they were measured on.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    photos: int

    def standardise(self, embeddings: Embeddings) -> NDArray[np.float32]:
        """Return embeddings `[N, D]` with the mean subtracted, divided by the scale."""
        return np.asarray((embeddings - self.mean) / self.scale, np.float32)


def measure_moments(embeddings: Embeddings, prior: Moments | None = None) -> Moments:
    """Measure the moments of embeddings `[N, D]`, N at least 1.

    Args:
        embeddings: Of one group.
        prior: Moments of all groups, which count as `PRIOR_PHOTOS` photos: few photos have noisy ones.
    """
    mean, scale = embeddings.mean(axis=0, dtype=np.float64), embeddings.std(axis=0, dtype=np.float64)
    scale += _MIN_SCALE
    if prior is not None:
        share = len(embeddings) / (len(embeddings) + PRIOR_PHOTOS)
        mean = share * mean + (1 - share) * prior.mean
        scale = share * scale + (1 - share) * prior.scale
    return Moments(mean, scale, len(embeddings))


def moments_by_group(embeddings: Embeddings, groups: Sequence[Hashable]) -> dict[Hashable, Moments]:
    """Measure the moments of each group.

    Args:
        embeddings: `[N, D]`, N at least 1.
        groups: The group of each photo, `[N]`.
    """
    overall = measure_moments(embeddings)
    members: dict[Hashable, list[int]] = {}
    for position, group in enumerate(groups):
        members.setdefault(group, []).append(position)
    return {group: measure_moments(embeddings[at], overall) for group, at in members.items()}


def align(
    embeddings: Embeddings, groups: Sequence[Hashable], moments: Mapping[Hashable, Moments]
) -> NDArray[np.float32]:
    """Standardise each embedding by the moments of its group.

    Args:
        embeddings: `[N, D]`.
        groups: The group of each photo, `[N]`.
        moments: Of every group that occurs.
    """
    aligned = np.empty(embeddings.shape, np.float32)
    for group in dict.fromkeys(groups):
        at = [position for position, other in enumerate(groups) if other == group]
        aligned[at] = moments[group].standardise(embeddings[at])
    return aligned


def fold(head: Head, moments: Moments) -> Head:
    """Return the head for unaligned embeddings that answers as `head` does for standardised ones."""
    kernel = head.kernel / moments.scale[:, None]
    return Head(kernel, head.bias - moments.mean @ kernel)
