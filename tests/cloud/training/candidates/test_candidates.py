"""Candidates: which labels each is trained on, cross-validation, and the choice."""

from dataclasses import replace

import numpy as np
import pytest

from cloud.dataset.example import Example, Source
from cloud.modeling.arrays import Floats, Ints
from cloud.progress import NoProgress
from cloud.training.candidates.candidates import (
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
from cloud.training.candidates.learners import Fitted, FrozenLearner

# Importing TensorFlow 2.21 with a current NumPy and protobuf warns about their own deprecated names.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(tensorflow|keras|numpy|google).*")


def world(human: int, harvested: int, wrong: int = 0) -> tuple[FrozenLearner, Labelled, Ints]:
    """Return two clusters in 30 dimensions; the first `wrong` harvested labels are wrong."""
    generator = np.random.default_rng(0)
    truth = np.arange(human + harvested) % 2
    features = generator.normal(size=(len(truth), 30)) + np.where(truth, 1.0, -1.0)[:, None]
    labels = truth.copy()
    labels[human : human + wrong] = 1 - labels[human : human + wrong]
    is_human = np.arange(len(truth)) < human
    labelled = Labelled(labels, is_human, labels < 0, ~is_human, np.ones(len(truth)), 2)
    return FrozenLearner(None, features.astype(np.float32), 2), labelled, np.arange(human)


def test_only_confirmed_harvested_photos_are_trained_on() -> None:
    """A label of the lane auto is used if the candidate of human labels predicts the same one."""
    learner, labelled, human = world(human=10, harvested=40, wrong=6)
    fitted = fit_candidates(learner, labelled, human)
    assert fitted[HUMAN].positions.tolist() == list(range(10))
    assert fitted[HARVESTED].positions.tolist() == [*range(10), *range(16, 50)]


def test_without_a_harvest_there_is_one_candidate() -> None:
    """Without harvested labels, or without a confirmed one, only the candidate of human labels is trained."""
    assert list(fit_candidates(*world(human=10, harvested=0))) == [HUMAN]
    assert list(fit_candidates(*world(human=10, harvested=8, wrong=8))) == [HUMAN]


def test_candidates_add_the_teachers_labels_before_the_lane_auto() -> None:
    """The second candidate adds the teacher's labels; the third the lane auto where edge and teacher agree.

    The teacher labelled four photos: two of other lanes, and two of the lane auto with the edge's label.
    Where it abstains, the edge's label is not used, even if the first candidate predicts the same.
    """
    learner, labelled, human = world(human=10, harvested=40, wrong=6)
    at = np.arange(50)
    taught = (at >= 10) & (at < 14)
    labelled = replace(labelled, teacher=taught, auto=at >= 12, edge_alone=False)
    fitted = fit_candidates(learner, labelled, human)
    assert list(fitted) == [HUMAN, TEACHER, HARVESTED]
    assert fitted[TEACHER].positions.tolist() == list(range(12))
    assert fitted[HARVESTED].positions.tolist() == list(range(14))


def test_the_edges_label_is_used_alone_until_there_can_be_a_teacher() -> None:
    """Without labels by a teacher, and with too few labelled samples to validate one."""

    def alone(*kinds: tuple[Source, str | None, int]) -> bool:
        photos = [
            Example("0" * 32, b"", "cat", source, lane=lane) for source, lane, n in kinds for _ in range(n)
        ]
        return Labelled.of(photos, ("cat", "dog")).edge_alone

    assert alone(("human", None, 99), ("human", "hard", 23), ("edge", "auto", 99))
    assert not alone(("human", "hard", 12), ("human", "feedback", 12), ("edge", "auto", 99))
    assert not alone(("human", None, 99), ("teacher", "auto", 1), ("edge", "auto", 99))


def test_a_copy_weighs_as_much_as_its_photo() -> None:
    """Copies equal to the photos give the same head as training on each photo twice."""
    learner, labelled, human = world(human=10, harvested=0)
    both = replace(learner, copies=learner.features)
    labels, weights = labelled.labels[human], labelled.weigh(human)
    seen = both.fit(human, labels, weights).head.kernel
    twice = learner.fit(np.tile(human, 2), np.tile(labels, 2), np.tile(weights, 2)).head.kernel
    np.testing.assert_allclose(seen, twice)


def test_the_lane_auto_is_switched_off_when_it_did_not_help_twice() -> None:
    """The lane auto goes off after two rounds without a lower loss; rounds without figures are ignored."""
    helped = {HUMAN: 0.5, TEACHER: 0.4, HARVESTED: 0.3}
    worse = {HUMAN: 0.5, TEACHER: 0.4, HARVESTED: 0.45}
    silent: dict[str, float | None] = {HUMAN: 0.5}
    untested: dict[str, float | None] = {HUMAN: None, HARVESTED: None}
    assert auto_helps([])
    assert auto_helps([worse])
    assert auto_helps([worse, helped])
    assert auto_helps([worse, helped, worse])
    assert not auto_helps([helped, worse, silent, untested, worse])


class Recording:
    """A learner that records which photos it answers, and which of them it was trained on."""

    def __init__(self, learner: FrozenLearner) -> None:
        self._learner, self.folds = learner, learner.folds
        self.trained_on: set[int] = set()
        self.answered: list[int] = []

    def fit(self, positions: Ints, labels: Ints, weights: Floats) -> Fitted:
        """Train with the wrapped learner."""
        return self._learner.fit(positions, labels, weights)

    def logits(self, fitted: Fitted, positions: Ints) -> Floats:
        """Answer with the wrapped learner."""
        self.trained_on |= set(fitted.positions.tolist()) & set(positions.tolist())
        self.answered += positions.tolist()
        return self._learner.logits(fitted, positions)


def test_each_human_label_is_answered_by_candidates_that_did_not_see_it() -> None:
    """Cross-validation answers every human-labelled photo once per candidate, with none trained on it."""
    learner, labelled, human = world(human=12, harvested=20, wrong=3)
    recording = Recording(learner)
    held_out = cross_validate(recording, labelled, seed=1, progress=NoProgress())
    assert not recording.trained_on
    assert sorted(p for p in recording.answered if p < 12) == sorted([*human] * 3)
    for answers in held_out.values():
        assert np.bincount(answers.labels).tolist() == [6, 6]
        assert answers.logits.shape == (12, 2)


def test_a_near_duplicate_of_a_held_out_photo_is_not_trained_on() -> None:
    """With any source of its label: an import of the photo, or a sample that a model labelled."""
    learner, labelled, human = world(human=12, harvested=20)
    groups = np.arange(32) % 8
    fitted = []

    class Grouped(Recording):
        def logits(self, fit: Fitted, positions: Ints) -> Floats:
            fitted.append(set(groups[fit.positions]) & set(groups[positions]) if positions[0] < 12 else set())
            return super().logits(fit, positions)

    held_out = cross_validate(
        Grouped(learner), replace(labelled, groups=groups), seed=1, progress=NoProgress()
    )
    assert len(held_out[HUMAN].labels) == len(human)
    assert not any(fitted)


def test_the_least_held_out_loss_is_chosen() -> None:
    """The lowest held-out loss is chosen; without held-out labels, the candidate of human labels."""
    labels = np.arange(20) % 2
    right, guess = HeldOut(np.eye(2)[labels] * 3, labels), HeldOut(np.zeros((20, 2)), labels)
    assert choose([HUMAN, HARVESTED], {HUMAN: guess, HARVESTED: right}) == HARVESTED
    assert choose([HUMAN, HARVESTED], {HUMAN: right, HARVESTED: guess}) == HUMAN
    nothing = HeldOut(np.zeros((0, 2)), np.zeros(0, np.int64))
    assert choose([HUMAN, HARVESTED], {HUMAN: nothing, HARVESTED: nothing}) == HUMAN


def test_the_lane_auto_is_chosen_if_it_helps() -> None:
    """With few human labels and many correct harvested ones, the candidate with the lane auto is chosen."""
    learner, labelled, human = world(human=10, harvested=300)
    held_out = cross_validate(learner, labelled, seed=0, progress=NoProgress())
    assert choose(fit_candidates(learner, labelled, human), held_out) == HARVESTED
