"""Learning policies, which start with the same labels and get the same photos."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from bench.learning.world import DIM, OTHER, PLAIN, Photos, Vectors, World
from cloud.labeling.review_order import UnlabelledPhoto, most_informative, pool_weights
from cloud.labeling.review_queue import Embedded, build_pool
from cloud.modeling.alignment import fold, measure_moments
from cloud.modeling.arrays import Floats, Ints, softmax
from cloud.modeling.backbones import EFFICIENTNET_LITE0
from cloud.modeling.linear_head import Head, fit_head

REVIEWS = 20
"""Human labels per round."""


@dataclass(frozen=True, slots=True)
class Model:
    """A linear head on the embeddings of a backbone, with its temperature."""

    head: Head
    temperature: float = 1.0
    backbone: str = EFFICIENTNET_LITE0.name

    def probabilities(self, vectors: Vectors) -> Floats:
        """Return the probabilities `[N, K]` of embeddings `[N, D]`."""
        return softmax(self.head.logits(vectors) / self.temperature)

    def answers(self, photos: Photos) -> Floats:
        """Return the probabilities `[N, K]` of photos."""
        return self.probabilities(photos.vectors_of(self.backbone))

    def accuracy(self, photos: Photos) -> float:
        """Return the share of correct answers."""
        return float((self.answers(photos).argmax(axis=1) == photos.truth).mean())


@dataclass(slots=True)
class Accepted:
    """Labels of models that were trained on."""

    labels_correct: dict[tuple[str, int], bool] = field(default_factory=dict)

    def count(self, photo_ids: Iterable[str], labels: Ints, truth: Ints) -> None:
        """Count each label of a photo once, even if it is trained on in several rounds."""
        right = labels == truth
        self.labels_correct |= zip(zip(photo_ids, labels.tolist(), strict=True), right.tolist(), strict=True)

    @property
    def labels(self) -> int:
        """Number of labels."""
        return len(self.labels_correct)

    @property
    def wrong(self) -> int:
        """Number of wrong labels."""
        return sum(not right for right in self.labels_correct.values())


def training_embeddings(sights: Vectors) -> Vectors:
    """Return the plain and the dimmed embeddings, `[2 * N, D]`, of `[3, N, D]`."""
    return np.concatenate([sights[PLAIN], sights[DIM]])


class Policy:
    """Base policy: keeps the first model and never learns.

    Args:
        world: Has the photos that are labelled at the start.
        seed: Seed of every random decision.
    """

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.draw = np.random.default_rng(seed)
        self.seed = seed
        self.accepted = Accepted()
        self.vectors = training_embeddings(world.labelled.sights)
        self.labels = np.tile(world.labelled.truth, 2)
        self.model = self.fit()

    def learn(self, stream: Photos) -> None:
        """Learn from the photos of a round."""

    def fit(self) -> Model:
        """Train on all labels with equal weights."""
        return Model(fit_head(self.vectors, self.labels, np.ones(len(self.labels)), len(self.world.classes)))

    def add(self, photos: Photos, positions: Ints, labels: Ints) -> None:
        """Add labels of some photos and train; photos of neither class are left out."""
        known = labels != OTHER
        self.vectors = np.concatenate([self.vectors, training_embeddings(photos.sights[:, positions[known]])])
        self.labels = np.concatenate([self.labels, np.tile(labels[known], 2)])
        self.model = self.fit()


class Confident(Policy):
    """Self-training: labels of the model above a confidence threshold are used as they are.

    Args:
        world: As for `Policy`.
        seed: As for `Policy`.
        threshold: Minimum confidence.
    """

    def __init__(self, world: World, seed: int, threshold: float) -> None:
        super().__init__(world, seed)
        self.threshold = threshold

    def learn(self, stream: Photos) -> None:
        """Add the confident labels of the model."""
        answers = self.model.answers(stream)
        taken = np.flatnonzero(answers.max(axis=1) >= self.threshold)
        labels = answers[taken].argmax(axis=1)
        self.accepted.count([stream.ids[position] for position in taken], labels, stream.truth[taken])
        self.add(stream, taken, labels)


class RandomLabels(Policy):
    """Human labels for photos that are drawn at random."""

    def learn(self, stream: Photos) -> None:
        """Add human labels."""
        taken = self.draw.permutation(len(stream))[:REVIEWS]
        self.add(stream, taken, stream.truth[taken])


class HardOnly(Policy):
    """Human labels for the photos with the smallest margin."""

    def learn(self, stream: Photos) -> None:
        """Add human labels."""
        answers = np.sort(self.model.answers(stream), axis=1)
        taken = np.argsort(answers[:, -1] - answers[:, -2], kind="stable")[:REVIEWS]
        self.add(stream, taken, stream.truth[taken])


class CoverageLabels(Policy):
    """Human labels for the photos that cover the stream, in the order of the review queue."""

    def __init__(self, world: World, seed: int) -> None:
        self.labelled: list[Embedded] = []
        super().__init__(world, seed)

    def learn(self, stream: Photos) -> None:
        """Add human labels."""
        embedded = embedded_photos(stream, len(self.labelled))
        taken = covering(stream, self.model.answers(stream), embedded, self.labelled)
        self.labelled += [embedded[position] for position in taken]
        self.add(stream, taken, stream.truth[taken])


class AlignedLabels(Policy):
    """Human labels for the photos that cover the stream, and a head on aligned embeddings.

    The embeddings of each stream are standardised by its own photos; so are those of the photos that it is
    evaluated on, as for a model that is served to this device or in this light alone.

    Args:
        world: As for `Policy`.
        seed: As for `Policy`.
        drawn: Whether photos are drawn at random instead.
    """

    def __init__(self, world: World, seed: int, *, drawn: bool = False) -> None:
        self.drawn = drawn
        self.labelled: list[Embedded] = []
        # There is no stream yet: the photos of the first evaluation set stand for it, without their labels.
        self.moments = measure_moments(np.concatenate([world.labelled.vectors, world.gate.vectors]))
        super().__init__(world, seed)
        self.vectors = self.moments.standardise(self.vectors)
        self.model = self.fit()

    def fit(self) -> Model:
        """Train on aligned embeddings; the served head is for unaligned ones of the newest stream."""
        head = fit_head(self.vectors, self.labels, np.ones(len(self.labels)), len(self.world.classes))
        return Model(fold(head, self.moments))

    def learn(self, stream: Photos) -> None:
        """Add human labels."""
        self.moments = measure_moments(stream.vectors)
        before = self.fit()  # the head of the round before, folded for this stream
        taken = self.draw.permutation(len(stream))[:REVIEWS]
        if not self.drawn:
            embedded = embedded_photos(stream, len(self.labelled))
            taken = covering(stream, before.answers(stream), embedded, self.labelled)
            self.labelled += [embedded[position] for position in taken]
        known = taken[stream.truth[taken] != OTHER]
        added = self.moments.standardise(training_embeddings(stream.sights[:, known]))
        self.vectors = np.concatenate([self.vectors, added])
        self.labels = np.concatenate([self.labels, np.tile(stream.truth[known], 2)])
        self.model = self.fit()


def embedded_photos(stream: Photos, period: int) -> list[Embedded]:
    """Return the photos of a stream as the review queue reads them; the period distinguishes streams."""
    devices = stream.devices or [""] * len(stream)
    return [
        Embedded(vector, (device, period)) for vector, device in zip(stream.vectors, devices, strict=True)
    ]


def covering(
    stream: Photos, answers: Floats, embedded: Sequence[Embedded], labelled: Sequence[Embedded]
) -> Ints:
    """Return the positions of the photos that the review queue asks about first."""
    ranked = np.sort(answers, axis=1)
    photos = [
        UnlabelledPhoto(photo_id=photo_id, margin=float(best - second))
        for photo_id, best, second in zip(stream.ids, ranked[:, -1], ranked[:, -2], strict=True)
    ]
    pool = build_pool(pool_weights(photos), dict(zip(stream.ids, embedded, strict=True)), labelled)
    positions = {photo_id: position for position, photo_id in enumerate(stream.ids)}
    return np.array([positions[asked.photo_id] for asked in most_informative(photos, REVIEWS, pool)])


class AllLabels(Policy):
    """Human labels for all photos: the upper limit."""

    def learn(self, stream: Photos) -> None:
        """Add human labels of all photos."""
        self.add(stream, np.arange(len(stream)), stream.truth)
