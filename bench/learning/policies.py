"""What is learnt from a round: policies side by side. Each starts from the same labels and lives through the same rounds."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from bench.learning.world import CLASSES, OTHER, Photos, Round, World
from cloud.candidates import HUMAN, Labelled, cross_validate, fit_candidates
from cloud.head import Floats, Head, Ints, softmax
from cloud.learners import FrozenLearner
from cloud.progress import Silent

REVIEWS = 20
"""Labels that people give in a round."""


@dataclass(frozen=True, slots=True)
class Model:
    """A head on the backbone's embeddings, and what calibrates it."""

    head: Head
    temperature: float = 1.0

    def answers(self, photos: Photos) -> Floats:
        """Return probabilities `[N, K]`."""
        return softmax(self.head.logits(photos.vectors) / self.temperature)

    def accuracy(self, photos: Photos) -> float:
        """Return the share of right answers."""
        return float((self.answers(photos).argmax(axis=1) == photos.truth).mean())


@dataclass(slots=True)
class Accepted:
    """Labels that no person gave and that were trained on."""

    labels: int = 0
    wrong: int = 0

    def count(self, labels: Ints, truth: Ints) -> None:
        """Count labels, and those that are not the truth."""
        self.labels += len(labels)
        self.wrong += int((labels != truth).sum())


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
        self.vectors = world.labelled.vectors
        self.labels = world.labelled.truth
        self.model = self.fit()

    def live(self, round_: Round) -> None:
        """Learn from a round."""

    def fit(self) -> Model:
        """Train on people's labels alone, calibrated on held-out ones."""
        ones = np.ones(len(self.labels))
        known = Labelled(self.labels, ones > 0, ones, len(CLASSES))
        learner = FrozenLearner(None, self.vectors, len(CLASSES))
        fitted = fit_candidates(learner, known, np.arange(len(self.labels)))[HUMAN]
        held_out = cross_validate(learner, known, seed=self.seed, progress=Silent())[HUMAN]
        return Model(fitted.head, held_out.temperature)

    def add(self, photos: Photos, positions: Ints, labels: Ints) -> None:
        """Learn labels of some photos; a photo of neither class teaches nothing."""
        known = labels != OTHER
        self.vectors = np.concatenate([self.vectors, photos.vectors[positions[known]]])
        self.labels = np.concatenate([self.labels, labels[known]])
        self.model = self.fit()


class Confident(Policy):
    """The rule that this system began with: what the model is sure of is true."""

    threshold = 0.8

    def live(self, round_: Round) -> None:
        answers = self.model.answers(round_.stream)
        taken = np.flatnonzero(answers.max(axis=1) >= self.threshold)
        labels = answers[taken].argmax(axis=1)
        self.accepted.count(labels, round_.stream.truth[taken])
        self.add(round_.stream, taken, labels)


class RandomLabels(Policy):
    """People label photos drawn at random."""

    def live(self, round_: Round) -> None:
        taken = self.draw.permutation(len(round_.stream))[:REVIEWS]
        self.add(round_.stream, taken, round_.stream.truth[taken])


class HardOnly(Policy):
    """People label what the model is least sure of."""

    def live(self, round_: Round) -> None:
        answers = np.sort(self.model.answers(round_.stream), axis=1)
        taken = np.argsort(answers[:, -1] - answers[:, -2], kind="stable")[:REVIEWS]
        self.add(round_.stream, taken, round_.stream.truth[taken])


class AllLabels(Policy):
    """People label everything: the ceiling."""

    def live(self, round_: Round) -> None:
        taken = np.arange(len(round_.stream))
        self.add(round_.stream, taken, round_.stream.truth)
