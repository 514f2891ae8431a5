"""Two ways to train: a head on the embeddings of a frozen backbone, or network and head from scratch."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import keras
import numpy as np
from numpy.typing import NDArray

from cloud.dataset.example import Example
from cloud.modeling.arrays import Floats, Ints
from cloud.modeling.backbones import Backbone
from cloud.modeling.linear_head import Head, fit_head
from cloud.modeling.whitening import fit_whitened_head
from cloud.progress import Progress
from cloud.reporting.loss_curves import LossCurves
from cloud.training.candidates.from_scratch import fit_network
from cloud.training.distributed import Team, alone
from cloud.training.embeddings import embed, embeddings
from cloud.training.sample_weights import FOLDS


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained classifier.

    Attributes:
        network: pixels to embedding.
        head: embedding to logits.
        positions: of the photos that it was trained on.
    """

    network: keras.Model
    head: Head
    positions: Ints


class Learner(Protocol):
    """Trains on some photos and answers others; photos are named by their position."""

    @property
    def folds(self) -> int:
        """Highest number of trainings per candidate in a cross-validation."""

    def fit(self, positions: Ints, labels: Ints, weights: Floats) -> Fitted:
        """Train on the photos at `positions`, with `labels` and `weights`; each is `[n]`."""

    def embeddings(self, fitted: Fitted, positions: Ints) -> NDArray[np.float32]:
        """Return the embeddings of the photos at `positions`, `[n, D]`."""

    def logits(self, fitted: Fitted, positions: Ints) -> Floats:
        """Return the logits of the photos at `positions`, `[n, K]`."""


def learner_for(
    backbone: Backbone,
    photos: Sequence[Example],
    classes: int,
    *,
    trainable: int,
    cache_dir: Path,
    seed: int,
    progress: Progress,
    team: Team | None = None,
    curves: LossCurves | None = None,
) -> Learner:
    """Return the learner of a backbone; a pretrained one embeds all photos now.

    Args:
        backbone: what to train, or to train a head on.
        photos: first the photos that may be trained on, then those that are only answered.
        classes: K.
        trainable: number of photos that may be trained on.
        cache_dir: where embeddings are cached.
        seed: of every random decision.
        progress: receives the steps.
        team: workers that share the work; by default this one alone.
        curves: receives the losses of trainings from scratch.

    Raises:
        BackboneUnavailableError: the backbone's weights are not available.
        TrainingError: a photo cannot be decoded.
    """
    if not backbone.pretrained:
        # Nothing to embed in advance: each candidate trains its own network.
        return ScratchLearner(
            backbone, photos, classes, seed, progress, team or alone(), curves or LossCurves()
        )
    progress.start("load the backbone", 1)
    network = backbone.build()
    progress.advance()
    # Gold photos too: all candidates answer them from the same embeddings.
    features = embeddings(photos, backbone, network, cache_dir, progress, team=team)
    copies = features[:trainable].copy()
    # Dimmed copies of human-labelled photos: they gain up to 1.9 points under drift (docs/experiments.md).
    labelled = [at for at, photo in enumerate(photos[:trainable]) if photo.human]
    if labelled:
        dim = [photos[at] for at in labelled]
        copies[labelled] = embeddings(dim, backbone, network, cache_dir, progress, dim=True, team=team)
    return FrozenLearner(network, features, classes, copies)


@dataclass(frozen=True, slots=True)
class FrozenLearner:
    """Trains a head on precomputed embeddings, in seconds.

    Attributes:
        network: the backbone.
        features: embeddings, `[N, D]`.
        classes: K.
        copies: embeddings of augmented copies of the first n photos, `[n, D]`, trained on with the same
            weight: dimmed if the label is human, else unchanged. None: no copies.
        whitened: fit heads on whitened principal components.
    """

    network: keras.Model
    features: NDArray[np.float32]
    classes: int
    copies: NDArray[np.float32] | None = None
    whitened: bool = False
    folds: int = FOLDS

    def fit(self, positions: Ints, labels: Ints, weights: Floats) -> Fitted:
        """Fit a head."""
        inputs = [each[positions] for each in (self.features, self.copies) if each is not None]
        times = len(inputs)
        fit = partial(fit_whitened_head, measured_on=inputs[0]) if self.whitened else fit_head
        head = fit(np.concatenate(inputs), np.tile(labels, times), np.tile(weights, times), self.classes)
        return Fitted(self.network, head, positions)

    def embeddings(self, fitted: Fitted, positions: Ints) -> NDArray[np.float32]:
        """Look up the embeddings."""
        del fitted  # the backbone is frozen: all candidates share the embeddings
        return self.features[positions]

    def logits(self, fitted: Fitted, positions: Ints) -> Floats:
        """Apply the head."""
        return fitted.head.logits(self.features[positions])


@dataclass(frozen=True, slots=True)
class ScratchLearner:
    """Trains network and head, in minutes; its cross-validation therefore has one fold."""

    backbone: Backbone
    photos: Sequence[Example]
    classes: int
    seed: int
    progress: Progress
    team: Team
    curves: LossCurves
    folds: int = 1

    def fit(self, positions: Ints, labels: Ints, weights: Floats) -> Fitted:
        """Train from random weights."""
        chosen = [self.photos[position] for position in positions]
        network, head = fit_network(
            self.backbone,
            chosen,
            labels,
            weights,
            self.classes,
            seed=self.seed,
            progress=self.progress,
            team=self.team,
            record=partial(self.curves.add, self.curves.new_name()),
        )
        return Fitted(network, head, positions)

    def embeddings(self, fitted: Fitted, positions: Ints) -> NDArray[np.float32]:
        """Run the network."""
        chosen = [self.photos[position] for position in positions]
        return embed(chosen, self.backbone, fitted.network, self.progress, self.team)

    def logits(self, fitted: Fitted, positions: Ints) -> Floats:
        """Run the network and apply the head."""
        return fitted.head.logits(self.embeddings(fitted, positions))
