"""Sample weights and cross-validation folds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.modeling.linear_head import fit_head
from cloud.training.sample_weights import CLASS_RATIO, FOLDS, HUMAN_SHARE, folds, training_weights

CLASSES = 4
LABELS = st.lists(st.integers(0, CLASSES - 1), max_size=60)


@given(human=LABELS, harvested=LABELS)
@settings(deadline=None)
def test_human_labels_have_half_of_the_weight_and_classes_are_balanced(
    human: list[int], harvested: list[int]
) -> None:
    """Human labels have at least half of the weight, classes differ by at most 3 : 1, no weight is zero."""
    labels = np.array([*range(CLASSES), *human, *harvested])
    is_human = np.arange(len(labels)) < CLASSES + len(human)
    weights = training_weights(labels, is_human, np.ones(len(labels)), CLASSES)
    assert weights.sum() == pytest.approx(1)
    assert weights.min() > 0
    assert weights[is_human].sum() >= HUMAN_SHARE - 1e-9
    masses = np.bincount(labels, weights=weights)
    assert masses.max() <= CLASS_RATIO * masses.min() + 1e-9


def test_weights_of_examples_hold_within_a_source_and_class() -> None:
    """Within a source and class, weights are proportional to those of the examples."""
    labels = np.array([0, 0, 1, 1])
    weights = training_weights(labels, labels >= 0, np.array([2.0, 1.0, 1.0, 1.0]), 2)
    assert weights[0] == pytest.approx(2 * weights[1])
    assert weights[2] == pytest.approx(weights[3])


def test_few_harvested_photos_do_not_count_more_than_human_labels() -> None:
    """Two harvested photos and 98 human labels: the harvested ones have 2 % of the weight."""
    labels = np.arange(100) % 2
    weights = training_weights(labels, np.arange(100) < 98, np.ones(100), 2)
    assert weights[98:].sum() == pytest.approx(0.02)


@given(labels=st.lists(st.integers(0, 3), min_size=1, max_size=50), seed=st.integers(0, 9))
@settings(deadline=None)
def test_folds_hold_out_each_example_once(labels: list[int], seed: int) -> None:
    """Each example of a class with two or more is held out once, and others of its class are trained on."""
    array = np.array(labels)
    out = []
    splits = list(folds(array, seed))
    assert len(splits) <= FOLDS
    for kept, held_out in splits:
        assert not set(kept) & set(held_out)
        assert set(array[held_out]) <= set(array[kept])
        out += list(held_out)
    assert sorted(out) == [i for i, label in enumerate(labels) if labels.count(label) > 1]


@given(labels=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=50))
@settings(deadline=None)
def test_near_duplicates_are_on_one_side(labels: list[tuple[int, int]]) -> None:
    """Photos of one group and label are held out together; a class that is one group is never held out."""
    array, groups = np.array(labels).T
    groups_of = {label: len(set(groups[array == label])) for label in set(array)}
    out = []
    for kept, held_out in folds(array, 0, groups):
        sides = ({(array[i], groups[i]) for i in side} for side in (kept, held_out))
        assert not next(sides) & next(sides)
        assert set(array[held_out]) <= set(array[kept])
        out += list(held_out)
    assert sorted(out) == [i for i, label in enumerate(array) if groups_of[label] > 1]


def test_frames_of_one_scene_do_not_praise_a_head_that_knows_the_scene() -> None:
    """Five frames of each of 40 scenes, whose classes are drawn at random: nothing can be learnt."""
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 5)
    frames = generator.normal(size=(40, 64))[groups] + 0.05 * generator.normal(size=(200, 64))
    labels = generator.permutation(np.tile([0, 1], 20))[groups]

    def accuracy(groups: np.ndarray | None) -> float:
        right = 0
        for kept, held_out in folds(labels, 0, groups):
            head = fit_head(frames[kept], labels[kept], np.ones(len(kept)), 2)
            right += int((head.logits(frames[held_out]).argmax(axis=1) == labels[held_out]).sum())
        return right / len(labels)

    assert accuracy(None) > 0.95, "without the groups, the head remembers the scene"
    assert accuracy(groups) < 0.65


def test_folds_follow_the_seed() -> None:
    """The same seed gives the same folds; another seed gives others."""
    labels = np.arange(40) % 2

    def first(seed: int) -> list[int]:
        return [int(position) for position in next(iter(folds(labels, seed)))[1]]

    assert first(1) == first(1)
    assert first(1) != first(2)
