"""Human labels with and without those of models, held out and chosen between."""

from dataclasses import replace

import numpy as np
import pytest

from cloud.dataset.example import Example, Source
from cloud.modeling.arrays import Floats, Ints
from cloud.progress import NoProgress
from cloud.training.candidates import (
    HARVESTED,
    HUMAN,
    TEACHER,
    HeldOut,
    Labelled,
    auto_helps,
    choose,
    cross_validate,
    fit_candidates,
)
from cloud.training.learners import Fitted, FrozenLearner

# Importing TensorFlow 2.21 with a current NumPy and protobuf warns about their own deprecated names.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(tensorflow|keras|numpy|google).*")


def world(human: int, harvested: int, wrong: int = 0) -> tuple[FrozenLearner, Labelled, Ints]:
    """Two clusters in 30 dimensions; of the harvested labels, the first `wrong` are wrong."""
    generator = np.random.default_rng(0)
    truth = np.arange(human + harvested) % 2
    features = generator.normal(size=(len(truth), 30)) + np.where(truth, 1.0, -1.0)[:, None]
    labels = truth.copy()
    labels[human : human + wrong] = 1 - labels[human : human + wrong]
    is_human = np.arange(len(truth)) < human
    labelled = Labelled(labels, is_human, labels < 0, ~is_human, np.ones(len(truth)), 2)
    return FrozenLearner(None, features.astype(np.float32), 2), labelled, np.arange(human)


def test_only_confirmed_harvested_photos_are_trained_on() -> None:
    """Harvested labels that the head of human labels contradicts are left out, the others taken."""
    learner, labelled, human = world(human=10, harvested=40, wrong=6)
    fitted = fit_candidates(learner, labelled, human)
    assert fitted[HUMAN].positions.tolist() == list(range(10))
    assert fitted[HARVESTED].positions.tolist() == [*range(10), *range(16, 50)]


def test_without_a_harvest_there_is_one_candidate() -> None:
    """Nothing harvested, or nothing of it confirmed, leaves people's labels alone."""
    assert list(fit_candidates(*world(human=10, harvested=0))) == [HUMAN]
    assert list(fit_candidates(*world(human=10, harvested=8, wrong=8))) == [HUMAN]


def test_the_teachers_labels_come_before_the_lane_auto() -> None:
    """The second candidate has the teacher's labels as they are; the third the lane auto where both agree.

    The teacher labelled four photos: two of which the edge was not sure, two where both said the same. Where
    it is silent the edge's label is not believed, whatever the first candidate says.
    """
    learner, labelled, human = world(human=10, harvested=40, wrong=6)
    at = np.arange(50)
    taught = (at >= 10) & (at < 14)
    labelled = replace(labelled, teacher=taught, auto=at >= 12, edge_alone=False)
    fitted = fit_candidates(learner, labelled, human)
    assert list(fitted) == [HUMAN, TEACHER, HARVESTED]
    assert fitted[TEACHER].positions.tolist() == list(range(12))
    assert fitted[HARVESTED].positions.tolist() == list(range(14))


def test_the_edges_label_stands_alone_until_there_can_be_a_teacher() -> None:
    """As long as no teacher said anything, and people labelled fewer samples than it takes to judge one."""

    def alone(*kinds: tuple[Source, str | None, int]) -> bool:
        photos = [
            Example("0" * 32, b"", "cat", source, lane=lane) for source, lane, n in kinds for _ in range(n)
        ]
        return Labelled.of(photos, ("cat", "dog")).edge_alone

    assert alone(("human", None, 99), ("human", "hard", 23), ("edge", "auto", 99))
    assert not alone(("human", "hard", 12), ("human", "feedback", 12), ("edge", "auto", 99))
    assert not alone(("human", None, 99), ("teacher", "auto", 1), ("edge", "auto", 99))


def test_a_copy_counts_as_the_photo_that_it_shows() -> None:
    """A head of photos and copies that are the photos again is the head of twice as many photos."""
    learner, labelled, human = world(human=10, harvested=0)
    both = replace(learner, copies=learner.features)
    labels, weights = labelled.labels[human], labelled.weigh(human)
    seen = both.fit(human, labels, weights).head.kernel
    twice = learner.fit(np.tile(human, 2), np.tile(labels, 2), np.tile(weights, 2)).head.kernel
    np.testing.assert_allclose(seen, twice)


def test_the_lane_auto_is_switched_off_when_it_did_not_help_twice() -> None:
    """Two rounds running in which it made held-out loss no less; rounds that say nothing do not count."""
    helped = {HUMAN: 0.5, TEACHER: 0.4, HARVESTED: 0.3}
    worse = {HUMAN: 0.5, TEACHER: 0.4, HARVESTED: 0.45}
    silent: dict[str, float | None] = {HUMAN: 0.5}
    untested: dict[str, float | None] = {HUMAN: None, HARVESTED: None}
    assert auto_helps([])
    assert auto_helps([worse])
    assert auto_helps([worse, helped])
    assert auto_helps([worse, helped, worse])
    assert not auto_helps([helped, worse, silent, untested, worse])


class Watched:
    """A learner that notes which photos a candidate answers though it was trained on them."""

    def __init__(self, learner: FrozenLearner) -> None:
        self._learner, self.folds, self.photo_count = learner, learner.folds, learner.photo_count
        self.seen_before: set[int] = set()
        self.answered: list[int] = []

    def fit(self, positions: Ints, labels: Ints, weights: Floats) -> Fitted:
        """Train as the learner does."""
        return self._learner.fit(positions, labels, weights)

    def logits(self, fitted: Fitted, positions: Ints) -> Floats:
        """Answer as the learner does."""
        self.seen_before |= set(fitted.positions.tolist()) & set(positions.tolist())
        self.answered += positions.tolist()
        return self._learner.logits(fitted, positions)


def test_each_human_label_is_answered_by_candidates_that_did_not_see_it() -> None:
    """Cross-validation answers every human label once per candidate, none by one trained on it."""
    learner, labelled, human = world(human=12, harvested=20, wrong=3)
    watched = Watched(learner)
    held_out = cross_validate(watched, labelled, seed=1, progress=NoProgress())
    assert not watched.seen_before
    assert sorted(p for p in watched.answered if p < 12) == sorted([*human] * 3)
    for answers in held_out.values():
        assert np.bincount(answers.labels).tolist() == [6, 6]
        assert answers.logits.shape == (12, 2)


def test_the_least_held_out_loss_is_chosen() -> None:
    """The candidate that answers held-out labels better is chosen; without any, people's labels are."""
    labels = np.arange(20) % 2
    right, guess = HeldOut(np.eye(2)[labels] * 3, labels), HeldOut(np.zeros((20, 2)), labels)
    assert choose([HUMAN, HARVESTED], {HUMAN: guess, HARVESTED: right}) == HARVESTED
    assert choose([HUMAN, HARVESTED], {HUMAN: right, HARVESTED: guess}) == HUMAN
    nothing = HeldOut(np.zeros((0, 2)), np.zeros(0, np.int64))
    assert choose([HUMAN, HARVESTED], {HUMAN: nothing, HARVESTED: nothing}) == HUMAN


def test_a_harvest_that_helps_is_chosen() -> None:
    """With few labels and a large right harvest, the second candidate wins."""
    learner, labelled, human = world(human=10, harvested=300)
    held_out = cross_validate(learner, labelled, seed=0, progress=NoProgress())
    assert choose(fit_candidates(learner, labelled, human), held_out) == HARVESTED
