"""What is learnt from a round, by policies that start from the same labels and see the same photos."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from bench.learning.world import CLASSES, DIM, OTHER, PLAIN, Photos, Vectors, World
from cloud.modeling.arrays import Floats, Ints, softmax
from cloud.modeling.linear_head import Head, fit_head

REVIEWS = 20
"""Labels that people give in a round."""


@dataclass(frozen=True, slots=True)
class Model:
    """A head on the backbone's embeddings, and what calibrates it."""

    head: Head
    temperature: float = 1.0

    def probabilities(self, vectors: Vectors) -> Floats:
        """Answer embeddings `[N, D]` with probabilities `[N, K]`."""
        return softmax(self.head.logits(vectors) / self.temperature)

    def answers(self, photos: Photos) -> Floats:
        """Return probabilities `[N, K]`."""
        return self.probabilities(photos.vectors)

    def accuracy(self, photos: Photos) -> float:
        """Return the share of right answers."""
        return float((self.answers(photos).argmax(axis=1) == photos.truth).mean())


@dataclass(slots=True)
class Accepted:
    """Labels that no person gave and that were trained on."""

    said: dict[tuple[str, int], bool] = field(default_factory=dict)

    def count(self, photo_ids: Iterable[str], labels: Ints, truth: Ints) -> None:
        """Count each label of a photo once, however often it is trained on."""
        right = labels == truth
        self.said |= zip(zip(photo_ids, labels.tolist(), strict=True), right.tolist(), strict=True)

    @property
    def labels(self) -> int:
        """How many."""
        return len(self.said)

    @property
    def wrong(self) -> int:
        """How many are not the truth."""
        return sum(not right for right in self.said.values())


def shown(sights: Vectors) -> Vectors:
    """Return what a training is shown of photos, as they are and at dusk: `[2 * N, D]` of `[3, N, D]`."""
    return np.concatenate([sights[PLAIN], sights[DIM]])


class Policy:
    """Learns nothing: the first model for ever.

    Args:
        world: What is labelled at first.
        seed: Of every random decision.
    """

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.draw = np.random.default_rng(seed)
        self.seed = seed
        self.accepted = Accepted()
        self.vectors = shown(world.labelled.sights)
        self.labels = np.tile(world.labelled.truth, 2)
        self.model = self.fit()

    def live(self, stream: Photos) -> None:
        """Learn from what the cameras saw in a round."""

    def fit(self) -> Model:
        """Train on all labels alike."""
        return Model(fit_head(self.vectors, self.labels, np.ones(len(self.labels)), len(CLASSES)))

    def add(self, photos: Photos, positions: Ints, labels: Ints) -> None:
        """Learn labels of some photos; a photo of neither class teaches nothing."""
        known = labels != OTHER
        self.vectors = np.concatenate([self.vectors, shown(photos.sights[:, positions[known]])])
        self.labels = np.concatenate([self.labels, np.tile(labels[known], 2)])
        self.model = self.fit()


class Confident(Policy):
    """The rule that this system began with: what the model is sure of is true.

    Args:
        world: As for `Policy`.
        seed: As for `Policy`.
        threshold: Least confidence.
    """

    def __init__(self, world: World, seed: int, threshold: float) -> None:
        super().__init__(world, seed)
        self.threshold = threshold

    def live(self, stream: Photos) -> None:
        """Believe the model."""
        answers = self.model.answers(stream)
        taken = np.flatnonzero(answers.max(axis=1) >= self.threshold)
        labels = answers[taken].argmax(axis=1)
        self.accepted.count([stream.ids[position] for position in taken], labels, stream.truth[taken])
        self.add(stream, taken, labels)


class RandomLabels(Policy):
    """People label photos drawn at random."""

    def live(self, stream: Photos) -> None:
        """Ask for labels."""
        taken = self.draw.permutation(len(stream))[:REVIEWS]
        self.add(stream, taken, stream.truth[taken])


class HardOnly(Policy):
    """People label what the model is least sure of."""

    def live(self, stream: Photos) -> None:
        """Ask for labels."""
        answers = np.sort(self.model.answers(stream), axis=1)
        taken = np.argsort(answers[:, -1] - answers[:, -2], kind="stable")[:REVIEWS]
        self.add(stream, taken, stream.truth[taken])


class AllLabels(Policy):
    """People label everything: the ceiling."""

    def live(self, stream: Photos) -> None:
        """Ask for all labels."""
        self.add(stream, np.arange(len(stream)), stream.truth)
