"""The teacher's ensemble: linear heads on frozen embeddings, with abstention.

Plain functions of embeddings; `cloud/labeling/auto_label.py` reads photos and writes labels. The teacher is
slower than a served model and may abstain: it labels a photo only if its heads agree, the photo resembles
photos with human labels, and its confidence was precise enough on held-out photos.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from cloud.modeling.arrays import Floats, Ints
from cloud.modeling.linear_head import Head, fit_head
from cloud.progress import NoProgress, Progress
from cloud.training.sample_weights import folds, training_weights

Embeddings = NDArray[np.float32]
"""Embeddings of one network, `[V, N, D]`: of the photos, and of mirror images where these show the same."""

HEADS = 8
"""Heads per network."""
AGREEMENT = 0.9
"""Minimum share of the votes for a label; with fewer the teacher abstains."""
OOD_QUANTILE = 0.05
"""Quantile of nearest-neighbour similarity among labelled photos; a photo below it is out of distribution."""
PRECISION = 0.98
"""Precision that the teacher's labels must have, as far as human labels can show it."""


@dataclass(frozen=True, slots=True)
class Votes:
    """The ensemble's votes on N photos.

    Attributes:
        probabilities: `[N, K]`, mean of all votes.
        agreement: `[N]`, share of the votes for the most probable class.
        in_distribution: `[N]`, whether a photo with a human label is similar enough.
    """

    probabilities: Floats
    agreement: Floats
    in_distribution: NDArray[np.bool_]

    @property
    def labels(self) -> Ints:
        """The most probable classes: `[N]`."""
        return np.asarray(self.probabilities.argmax(axis=1))

    @property
    def confidence(self) -> Floats:
        """Probability of the labels; 0 if the votes disagree or the photo is out of distribution: `[N]`."""
        credible = self.in_distribution & (self.agreement >= AGREEMENT)
        return np.where(credible, self.probabilities.max(axis=1), 0.0)


@dataclass(frozen=True, slots=True)
class Ensemble:
    """A fitted ensemble.

    Attributes:
        heads: by network.
        references: unit vectors `[M, D]` of the photos it was fitted to, all networks side by side.
        min_similarity: minimum cosine of an in-distribution photo to its nearest reference.
    """

    heads: tuple[tuple[Head, ...], ...]
    references: NDArray[np.float32]
    min_similarity: float

    def votes(self, embeddings: Sequence[Embeddings]) -> Votes:
        """Return the votes of all heads on each photo and its mirror image, if there is one.

        Args:
            embeddings: by network, in the order of the heads.
        """
        votes = np.concatenate(
            [
                softmax(head.logits(view), axis=1)[None]
                for heads, views in zip(self.heads, embeddings, strict=True)
                for head in heads
                for view in views
            ]
        )
        probabilities = votes.mean(axis=0)
        agreement = (votes.argmax(axis=2) == probabilities.argmax(axis=1)).mean(axis=0)
        similarity = _nearest_similarity(self.references, _unit_vectors(embeddings))
        return Votes(probabilities, agreement, similarity >= self.min_similarity)


def fit_ensemble(embeddings: Sequence[Embeddings], labels: Ints, classes: int, *, seed: int) -> Ensemble:
    """Fit heads by the Bayesian bootstrap: each weights the photos at random.

    Args:
        embeddings: By network, all of the same N photos.
        labels: `[N]`, human labels in [0, classes), each class at least once.
        classes: K.
        seed: Seeds the random weights.

    Source: Breiman, Bagging predictors (1996); Rubin, The Bayesian bootstrap (1981).
    """
    generator = np.random.default_rng(seed)
    human = np.ones(len(labels), bool)

    def fit(views: Embeddings) -> Head:
        # Exponential weights are never 0: unlike a resample, no draw loses a class with few photos.
        drawn = generator.exponential(size=len(labels))
        weights = training_weights(labels, human, drawn, classes)
        return fit_head(
            np.concatenate(views), np.tile(labels, len(views)), np.tile(weights, len(views)), classes
        )

    references = _unit_vectors(embeddings)
    # A linear head is most certain far from all data, so a distance must show that a photo is unknown.
    min_similarity = float(np.quantile(_nearest_similarity(references), OOD_QUANTILE))
    heads = tuple(tuple(fit(views) for _ in range(HEADS)) for views in embeddings)
    return Ensemble(heads, references, min_similarity)


def _unit_vectors(embeddings: Sequence[Embeddings]) -> NDArray[np.float32]:
    """Return the photos' embeddings as unit vectors, whose dot product is the mean cosine of the networks."""
    parts = [normalize(views[0]) for views in embeddings]
    return np.asarray(np.concatenate(parts, axis=1) / math.sqrt(len(parts)), np.float32)


def _nearest_similarity(
    references: NDArray[np.float32], photos: NDArray[np.float32] | None = None
) -> NDArray[np.float64]:
    """Return the cosine of each photo to its nearest reference: `[N]`.

    Args:
        references: unit vectors `[M, D]`.
        photos: unit vectors `[N, D]`; by default the references, each compared with the others only.
    """
    # By Euclidean distance: for it scikit-learn works in blocks and never holds a matrix of all pairs.
    neighbours = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(references)
    distances, _ = neighbours.kneighbors(photos)
    # |a - b|² = 2 - 2 cos for unit vectors.
    return np.asarray(1 - distances[:, 0] ** 2 / 2)


def out_of_fold_votes(
    embeddings: Sequence[Embeddings],
    labels: Ints,
    classes: int,
    *,
    seed: int,
    groups: Ints | None = None,
    progress: Progress | None = None,
) -> tuple[Ints, Votes] | None:
    """Cross-validate: return votes on photos by ensembles that were fitted without them.

    Args:
        embeddings: As for `fit_ensemble`.
        labels: `[N]`.
        classes: K.
        seed: Seeds the folds and the ensembles.
        groups: `[N]`, numbers of the groups of near-duplicates, which are held out together.
        progress: Advances by folds.

    Returns:
        Indices of the M photos that were held out (the only group of a class never is), and the votes on
        them; None if no photo can be held out.
    """
    splits, progress = list(folds(labels, seed, groups)), progress or NoProgress()
    if not splits:
        return None
    progress.start("judge labels", len(splits))
    parts = []
    for train, test in splits:
        ensemble = fit_ensemble([views[:, train] for views in embeddings], labels[train], classes, seed=seed)
        parts.append(ensemble.votes([views[:, test] for views in embeddings]))
        progress.advance()
    indices = np.concatenate([test for _, test in splits])
    return indices, Votes(
        np.concatenate([part.probabilities for part in parts]),
        np.concatenate([part.agreement for part in parts]),
        np.concatenate([part.in_distribution for part in parts]),
    )


def confidence_threshold(
    confidence: Floats, correct: NDArray[np.bool_], precision: float = PRECISION
) -> float | None:
    """Choose the lowest confidence threshold that has a given precision.

    Args:
        confidence: `[M]`, in [0, 1], of out-of-fold votes on photos with a human label.
        correct: `[M]`, whether the vote equals the human label.
        precision: Expected share of correct labels, in (0, 1).

    Returns:
        The threshold; None if there are too few labels to show that precision (for 0.98: fewer than 24, all
        correct).

    Source: the expectation is the mean of Jeffreys' posterior, (correct + 1/2) / (count + 1).
    """
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    expected = (np.cumsum(correct[order]) + 0.5) / (np.arange(len(ranked)) + 2)
    # A threshold admits all photos of equal confidence, so it may only be placed after the last of them.
    last_of_equals = np.append(ranked[1:] != ranked[:-1], True)[: len(ranked)]
    # A confidence of 0 marks an abstention.
    admissible = np.flatnonzero(last_of_equals & (expected >= precision) & (ranked > 0))
    return float(ranked[admissible[-1]]) if len(admissible) else None


def lane_thresholds(
    confidence: Floats,
    correct: NDArray[np.bool_],
    sampled: NDArray[np.bool_],
    hard: NDArray[np.bool_],
) -> tuple[float, float]:
    """Choose the confidence thresholds for photos of lane hard and for all other samples.

    Args:
        confidence: As for `confidence_threshold`.
        correct: As for `confidence_threshold`.
        sampled: `[M]`, whether the photo is a sample.
        hard: `[M]`, whether it is a sample of lane hard since the last training.

    Returns:
        The thresholds of other samples and of lane hard, in this order, to be indexed by "is hard"; infinite
        where there are too few labels.
    """
    # Imported photos do not count: the teacher can be right on them and, after drift, wrong on samples.
    found = (confidence_threshold(confidence[kind], correct[kind], PRECISION) for kind in (sampled, hard))
    of_samples, of_hard = (math.inf if threshold is None else threshold for threshold in found)
    # Lane hard is judged by its own photos, and never less strictly than samples as a whole.
    return of_samples, max(of_samples, of_hard)
