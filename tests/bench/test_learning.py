"""The comparison of learning policies: its arithmetic, and the rules of the full policy."""

from collections import Counter

import numpy as np
import pytest

from bench.learning.__main__ import gate_decision_on_swapped_labels, interval, simulate, summary
from bench.learning.drift import degraded
from bench.learning.full import Full
from bench.learning.policies import REVIEWS, Accepted, AllLabels, Confident, HardOnly, Policy, RandomLabels
from bench.learning.world import OTHER, Photos, Round, World
from bench.second_version import REVIEWS as REVIEWS_OF_DEMO
from bench.second_version import Drawn, demonstration_rules, play
from bench.second_version import summary as summary_of_rounds
from schemas.class_names import NEITHER
from tests.conftest import jpeg
from tests.nodes import photo_id

_DIM = 6


def photos(truth: list[int], first: int, shift: float = 0.0, seed: int = 0) -> Photos:
    """Return three clusters of embeddings, the third for neither class; `shift` moves all of them."""
    draw = np.random.default_rng(seed)
    vectors = draw.normal(0, 0.25, (len(truth), _DIM))
    vectors[np.arange(len(truth)), np.array(truth) % 3] += 1.0
    vectors[:, 3] += shift
    return Photos(
        ids=[photo_id(first + number) for number in range(len(truth))],
        sights=np.stack([vectors] * 3).astype(np.float32),
        truth=np.array(truth),
        views=draw.integers(0, 2**63, len(truth)).tolist(),
    )


@pytest.fixture
def world() -> World:
    """Two rounds of 150 photos; 30 of them show neither class."""
    stream = [0, 1] * 60 + [OTHER] * 30
    return World(
        labelled=photos([0, 1] * 20, 0),
        gate=photos([0, 1] * 100, 1000, seed=1),
        rounds=[
            Round(photos(stream, 2000 * (at + 1), 0.2 * at, at), photos([0, 1] * 50, 9000, 0.2 * at, at))
            for at in range(2)
        ],
    )


def test_drift_depends_on_strength_and_seed():
    """Strength 0 returns the same bytes; above it, strength and seed determine the result."""
    assert degraded(jpeg(1), 0.0, 7) == jpeg(1)
    assert degraded(jpeg(1), 0.5, 7) == degraded(jpeg(1), 0.5, 7)
    assert len({degraded(jpeg(1), strength, seed) for strength in (0.3, 0.6) for seed in (1, 2)}) == 4


def test_a_label_is_counted_once_however_often_it_is_trained_on():
    """The same label of a photo counts once, another label of it counts again."""
    accepted = Accepted()
    for labels in ([0, 1], [0, 0]):
        accepted.count(["a", "b"], np.array(labels), np.array([0, OTHER]))
    assert (accepted.labels, accepted.wrong) == (3, 2)


def test_the_interval_is_that_of_the_mean():
    """It has width 0 for equal values, and is symmetric around the mean."""
    assert interval([0.5] * 5) == (0.5, 0.5)
    low, high = interval([0.4, 0.5, 0.6, 0.5, 0.5])
    assert 0.4 < low < 0.5 < high < 0.6


def test_the_full_policy_keeps_its_rules(world):
    """Reviews stay in the budget; photos of neither class and fresh audits are not trained on."""
    full = Full(world, 0)
    for number, round_ in enumerate(world.rounds):
        asked = Counter(sample.human is not None for sample in full.samples)[True]
        full.learn(round_.stream)
        assert Counter(sample.human is not None for sample in full.samples)[True] - asked <= REVIEWS
        fresh = [
            sample for sample in full.samples if sample.lane == "audit" and sample.round_number == number
        ]
        assert fresh
        assert not {sample.photo_id for sample in fresh} & {
            photo for photo, _ in full.accepted.labels_correct
        }
    assert {sample.lane for sample in full.samples} == {None, "auto", "hard", "audit"}
    trained_on = [sample for sample in full.samples if full._is_trained_on(sample)]
    assert not [sample for sample in trained_on if sample.human == NEITHER]
    others = [sample for sample in full.samples if sample.truth == OTHER]
    assert {sample.human for sample in others} == {None, NEITHER}
    assert Counter(sample.lane for sample in others)["hard"] > 0.8 * len(others), "neither class is not auto"


def test_policies_run_on_the_same_world(world):
    """`frozen` accepts no labels, self-training also those of photos of neither class, `full` far fewer."""
    frozen, all_labels, full = (simulate(world, kind(world, 0)) for kind in (Policy, AllLabels, Full))
    self_training = simulate(world, Confident(world, 0, 0.5))
    assert (frozen.accepted, frozen.worst_step) == (0, 0.0)
    assert (self_training.accepted, self_training.wrong >= 60) == (300, True)
    assert full.wrong < self_training.wrong / 3
    assert set(full.verdicts) <= {"promote", "keep", "inconclusive"}
    summarised = summary([frozen, all_labels], [frozen, frozen])
    assert summarised["accepted"] == 0
    assert summarised["wrong_share"] is None
    gains = np.mean(all_labels.accuracy) - np.mean(frozen.accuracy)
    assert summarised["gain"] == pytest.approx(gains / 2, abs=1e-4)
    assert summarised["last"] == pytest.approx((frozen.accuracy[-1] + all_labels.accuracy[-1]) / 2, abs=1e-4)


@pytest.mark.parametrize("kind", [RandomLabels, HardOnly])
def test_human_labels_stay_in_the_budget(world, kind):
    """At most `REVIEWS` photos per round are labelled, and those of neither class are not trained on."""
    policy = kind(world, 0)
    policy.learn(world.rounds[0].stream)
    added = len(policy.labels) // 2 - len(world.labelled)
    assert 0 < added <= REVIEWS


def test_the_gate_stops_a_model_with_swapped_labels(world):
    """A model that swaps cats and dogs is not promoted."""
    assert gate_decision_on_swapped_labels(world) == "keep"


def test_a_round_of_the_demonstration_is_played_as_it_is_set_up():
    """Ten labels, the edge's lanes, the queue's 20 labels and the gate: version 2 is better, and promoted."""
    draw = np.random.default_rng(0)
    truth = tuple(np.arange(count) % 2 for count in (10, 120, 200))
    labelled, stream, gold = (
        (draw.normal(0, 1, (len(one), 40)) + np.eye(40)[one] * 2.5).astype(np.float32) for one in truth
    )
    views = draw.integers(0, 2**63, 120).tolist()
    world = Drawn(np.stack([labelled] * 2), np.stack([stream] * 2), stream, views, gold, truth)
    rounds = [play(world, 0, np.random.default_rng(number)) for number in range(2)]
    assert demonstration_rules().auto_confidence == 0.6
    assert play(world, 0, np.random.default_rng(0)) == rounds[0]
    counts = summary_of_rounds(rounds)
    assert counts["better"] == 2
    assert counts["version 2"] > counts["version 1"] + 0.05
    assert REVIEWS_OF_DEMO == 20
