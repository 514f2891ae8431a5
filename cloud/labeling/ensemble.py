"""The teacher: an ensemble of heads on what frozen networks see of a photo and of its mirror image.

Plain functions of embeddings; `cloud/labeling/auto_label.py` reads photos and writes labels. A teacher is
slower than what serves, and may abstain: it gives a label only where its heads agree and were right before.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloud.modeling.arrays import Floats, Ints, softmax
from cloud.modeling.linear_head import Head, fit_head
from cloud.training.sample_weights import folds, training_weights

Embeddings = NDArray[np.float32]
"""Embeddings of one network, `[2, N, D]`: of the photos, and of their mirror images."""

HEADS = 8
"""For each network."""
AGREEMENT = 0.9
"""Least share of the votes that have to be for a label."""
OOD_QUANTILE = 0.05
"""Share of people's own photos that are further from the nearest other one than a photo may be."""
PRECISION = 0.98
"""Least share of the teacher's labels that are to be right, as far as people's labels can tell."""
_BLOCK_PHOTOS = 256


@dataclass(frozen=True, slots=True)
class Votes:
    """What the teacher thinks of some photos.

    Attributes:
        probabilities: `[N, K]`, the mean of all votes.
        agreement: `[N]`, share of the votes that are for the likeliest class.
        familiar: `[N]`, whether the like of it is among the photos that people labelled.
    """

    probabilities: Floats
    agreement: Floats
    familiar: NDArray[np.bool_]

    @property
    def labels(self) -> Ints:
        """The likeliest classes, `[N]`."""
        return np.asarray(self.probabilities.argmax(axis=1))

    @property
    def confidence(self) -> Floats:
        """Probability of the labels, 0 where the votes do not agree or the photo is a strange one: `[N]`."""
        credible = self.familiar & (self.agreement >= AGREEMENT)
        return np.where(credible, self.probabilities.max(axis=1), 0.0)


@dataclass(frozen=True, slots=True)
class Ensemble:
    """What was fitted to sights; networks in their order.

    Attributes:
        heads: by network.
        memory: what they were fitted to, by network as directions `[M, D]`.
        least_likeness: of a photo that is familiar, to the nearest in memory.
    """

    heads: tuple[tuple[Head, ...], ...]
    memory: tuple[NDArray[np.float32], ...]
    least_likeness: float

    def votes(self, sights: Sequence[Embeddings]) -> Votes:
        """Let each head vote on each photo and on its mirror image."""
        votes = np.concatenate(
            [
                softmax(head.logits(view))[None]
                for heads, sight in zip(self.heads, sights, strict=True)
                for head in heads
                for view in sight
            ]
        )
        probabilities = votes.mean(axis=0)
        agreement = (votes.argmax(axis=2) == probabilities.argmax(axis=1)).mean(axis=0)
        familiar = _likeness(sights, self.memory) >= self.least_likeness
        return Votes(probabilities, agreement, familiar)


def fit_ensemble(sights: Sequence[Embeddings], labels: Ints, classes: int, *, seed: int) -> Ensemble:
    """Fit heads that differ in how much each photo counts.

    Args:
        sights: One per network, all of the same N photos.
        labels: `[N]`, people's, in [0, classes), each at least once.
        classes: K.
        seed: Decides what counts how much.

    Source: Breiman, Bagging predictors (1996), with the weights of Rubin, The Bayesian bootstrap (1981):
    they are never zero, so that no class of few photos is missing from a sample.
    """
    generator = np.random.default_rng(seed)
    people = np.ones(len(labels), bool)

    def fit(sight: Embeddings) -> Head:
        drawn = generator.exponential(size=len(labels))
        weights = training_weights(labels, people, drawn, classes)
        return fit_head(np.concatenate(sight), np.tile(labels, 2), np.tile(weights, 2), classes)

    memory = tuple(_directions(sight) for sight in sights)
    least = float(np.quantile(_likeness(sights, memory, of_memory=True), OOD_QUANTILE))
    return Ensemble(tuple(tuple(fit(sight) for _ in range(HEADS)) for sight in sights), memory, least)


def _directions(sight: Embeddings) -> NDArray[np.float32]:
    """Return the embeddings of the photos themselves at unit length: `[N, D]`."""
    return np.asarray(sight[0] / np.linalg.norm(sight[0], axis=1, keepdims=True).clip(1e-12))


def _likeness(
    sights: Sequence[Embeddings], memory: Sequence[NDArray[np.float32]], *, of_memory: bool = False
) -> NDArray[np.float32]:
    """Return how like photos are to the nearest in memory: cosines, the mean over the networks, `[N]`.

    No more than a block of photos is held against the memory at once.

    Args:
        sights: Of the photos.
        memory: What they are compared with.
        of_memory: Whether the photos are those in memory: then none is its own nearest.
    """
    nearest = np.empty(sights[0].shape[1], np.float32)
    for start in range(0, len(nearest), _BLOCK_PHOTOS):
        block = slice(start, start + _BLOCK_PHOTOS)
        pairs = zip(sights, memory, strict=True)
        likeness = np.mean([_directions(sight[:, block]) @ known.T for sight, known in pairs], axis=0)
        if of_memory:
            np.fill_diagonal(likeness[:, block], -1.0)
        nearest[block] = likeness.max(axis=1)
    return nearest


def out_of_fold_votes(
    sights: Sequence[Embeddings], labels: Ints, classes: int, *, seed: int
) -> tuple[Ints, Votes] | None:
    """Let ensembles judge photos that they were not fitted to.

    Args:
        sights: As for `fit_ensemble`.
        labels: `[N]`.
        classes: K.
        seed: Decides the folds, and what counts how much.

    Returns:
        Positions of the M photos that were held out (a class's only photo never is), and the opinions of
        them; None if there are none.
    """
    splits = list(folds(labels, seed))
    if not splits:
        return None
    parts = []
    for kept, apart in splits:
        ensemble = fit_ensemble([sight[:, kept] for sight in sights], labels[kept], classes, seed=seed)
        parts.append(ensemble.votes([sight[:, apart] for sight in sights]))
    positions = np.concatenate([apart for _, apart in splits])
    return positions, Votes(
        np.concatenate([part.probabilities for part in parts]),
        np.concatenate([part.agreement for part in parts]),
        np.concatenate([part.familiar for part in parts]),
    )


def confidence_threshold(confidence: Floats, right: NDArray[np.bool_], precision: float = PRECISION) -> float | None:
    """Choose how sure a teacher has to be.

    Args:
        sureness: `[M]`, in [0, 1], of opinions on photos that a person labelled and the teacher did not see.
        right: `[M]`, whether the opinion is the person's.
        precision: Share of right ones to expect, in (0, 1).

    Returns:
        The least sureness from which on that is to be expected; None where there are too few labels to say
        so (of 0.98: fewer than 24, all right).

    Source: the expectation is the mean of Jeffreys' posterior, (right + 1/2) / (count + 1).
    """
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    expected = (np.cumsum(right[order]) + 0.5) / (np.arange(len(ranked)) + 2)
    last_of_its_kind = np.append(ranked[1:] != ranked[:-1], True)[: len(ranked)]
    enough = np.flatnonzero(last_of_its_kind & (expected >= precision) & (ranked > 0))
    return float(ranked[enough[-1]]) if len(enough) else None


def lane_thresholds(
    confidence: Floats,
    right: NDArray[np.bool_],
    sampled: NDArray[np.bool_],
    hard: NDArray[np.bool_],
    precision: float = PRECISION,
) -> tuple[float, float]:
    """Choose how sure a teacher has to be of photos of the lane hard, and of all other samples.

    It labels what cameras send, and is judged by people's labels of that: of imported photos it may be right
    and, under drift, wrong of these. Of the lane hard it is judged by that lane, and never less strictly.

    Args:
        sureness: As for `confidence_threshold`.
        right: As for `confidence_threshold`.
        sampled: `[M]`, whether a camera sent the photo.
        hard: `[M]`, whether that came by the lane hard.
        precision: As for `confidence_threshold`.

    Returns:
        The least sureness of others and of the lane hard, in this order, to be indexed by "is hard";
        infinite where it cannot be chosen.
    """
    found = (confidence_threshold(confidence[kind], right[kind], precision) for kind in (sampled, hard))
    of_samples, of_hard = (math.inf if least is None else least for least in found)
    return of_samples, max(of_samples, of_hard)
