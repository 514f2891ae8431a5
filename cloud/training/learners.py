"""The two ways to learn: a head on a frozen backbone's embeddings, or everything from scratch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import keras
import numpy as np
from numpy.typing import NDArray

from cloud.dataset.example import Example
from cloud.modeling.arrays import Floats, Ints
from cloud.modeling.backbones import Backbone
from cloud.modeling.linear_head import Head, fit_head
from cloud.progress import Progress
from cloud.training.distributed import Team, alone
from cloud.training.embeddings import embed, embeddings
from cloud.training.from_scratch import fit_network
from cloud.training.sample_weights import FOLDS


@dataclass(frozen=True, slots=True)
class Fitted:
    """A classifier and what it was trained on.

    Attributes:
        network: pixels to embedding.
        head: embedding to logits.
        positions: of the photos that it was trained on.
    """

    network: keras.Model
    head: Head
    positions: Ints


class Learner(Protocol):
    """Trains on some of its photos and answers others; photos go by their position in its list."""

    @property
    def photo_count(self) -> int:
        """How many photos it knows."""

    @property
    def folds(self) -> int:
        """How many trainings per candidate a cross-validation may cost."""

    def fit(self, positions: Ints, labels: Ints, weights: Floats) -> Fitted:
        """Train on the photos at `positions` with their `labels` and `weights`, all `[n]`."""

    def embeddings(self, fitted: Fitted, positions: Ints) -> NDArray[np.float32]:
        """Embed the photos at `positions`: `[n, D]`."""

    def logits(self, fitted: Fitted, positions: Ints) -> Floats:
        """Answer the photos at `positions`: `[n, K]`."""


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
) -> Learner:
    """Choose the way that a backbone is trained, and embed the photos if that is done only once.

    Args:
        backbone: what to train, or to train a head on.
        photos: those that may be trained on, and behind them those that are only answered.
        classes: K.
        trainable: how many may be trained on.
        cache_dir: keeps embeddings.
        seed: of every random decision.
        progress: told about the steps.
        team: shares the work; nobody by default.

    Raises:
        BackboneUnavailableError: the backbone's weights cannot be had.
        TrainingError: a photo cannot be decoded.
    """
    if not backbone.pretrained:
        return ScratchLearner(backbone, photos, classes, seed, progress, team or alone())
    progress.start("load the backbone", 1)
    network = backbone.build()
    progress.advance()
    features = embeddings(photos, backbone, network, cache_dir, progress, team=team)
    copies = features[:trainable].copy()
    labelled = [at for at, photo in enumerate(photos[:trainable]) if photo.human]
    if labelled:
        dim = [photos[at] for at in labelled]
        copies[labelled] = embeddings(dim, backbone, network, cache_dir, progress, dim=True, team=team)
    return FrozenLearner(network, features, classes, copies)


@dataclass(frozen=True, slots=True)
class FrozenLearner:
    """Trains a head on embeddings that are known: within seconds.

    Attributes:
        network: the backbone.
        features: `[N, D]`.
        classes: K.
        copies: `[n, D]`, of the first n photos, shown beside them with the same weight: as they would look at
            dusk where people labelled them, else as they are. None shows no copies.
    """

    network: keras.Model
    features: NDArray[np.float32]
    classes: int
    copies: NDArray[np.float32] | None = None
    folds: int = FOLDS

    @property
    def photo_count(self) -> int:
        """How many photos it knows."""
        return len(self.features)

    def fit(self, positions: Ints, labels: Ints, weights: Floats) -> Fitted:
        """Fit a head."""
        shown = [each[positions] for each in (self.features, self.copies) if each is not None]
        times = len(shown)
        head = fit_head(np.concatenate(shown), np.tile(labels, times), np.tile(weights, times), self.classes)
        return Fitted(self.network, head, positions)

    def embeddings(self, fitted: Fitted, positions: Ints) -> NDArray[np.float32]:
        """Look them up."""
        del fitted
        return self.features[positions]

    def logits(self, fitted: Fitted, positions: Ints) -> Floats:
        """Apply the head."""
        return fitted.head.logits(self.features[positions])


@dataclass(frozen=True, slots=True)
class ScratchLearner:
    """Trains network and head: minutes, so its cross-validation holds out one fold only."""

    backbone: Backbone
    photos: Sequence[Example]
    classes: int
    seed: int
    progress: Progress
    team: Team
    folds: int = 1

    @property
    def photo_count(self) -> int:
        """How many photos it knows."""
        return len(self.photos)

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
        )
        return Fitted(network, head, positions)

    def embeddings(self, fitted: Fitted, positions: Ints) -> NDArray[np.float32]:
        """Run the network."""
        chosen = [self.photos[position] for position in positions]
        return embed(chosen, self.backbone, fitted.network, self.progress, self.team)

    def logits(self, fitted: Fitted, positions: Ints) -> Floats:
        """Run the network and apply the head."""
        return fitted.head.logits(self.embeddings(fitted, positions))
