"""The comparison of policies: its arithmetic, and that the whole policy keeps its own rules."""

from collections import Counter

import numpy as np
import pytest

from bench.learning.__main__ import gate_on_swapped_labels, interval, play, summary
from bench.learning.drift import degraded_photo
from bench.learning.full import Full
from bench.learning.policies import REVIEWS, Accepted, AllLabels, Confident, HardOnly, Policy, RandomLabels
from bench.learning.world import OTHER, Photos, Round, World
from schemas.messages import NEITHER
from tests.conftest import jpeg
from tests.nodes import photo_id

_DIM = 6


def photos(truth: list[int], first: int, shift: float = 0.0, seed: int = 0) -> Photos:
    """Two clouds of embeddings, and a third of what is neither; the shift moves all of them."""
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
    """Two rounds of 150 photos, of which 30 show neither class."""
    stream = [0, 1] * 60 + [OTHER] * 30
    return World(
        labelled=photos([0, 1] * 20, 0),
        gate=photos([0, 1] * 100, 1000, seed=1),
        rounds=[
            Round(photos(stream, 2000 * (at + 1), 0.2 * at, at), photos([0, 1] * 50, 9000, 0.2 * at, at))
            for at in range(2)
        ],
    )


def test_a_young_camera_changes_nothing_and_an_old_one_always_the_same():
    """Strength 0 leaves a photo byte for byte; more changes it, and the seed decides how."""
    assert degraded_photo(jpeg(1), 0.0, 7) == jpeg(1)
    assert degraded_photo(jpeg(1), 0.5, 7) == degraded_photo(jpeg(1), 0.5, 7)
    assert len({degraded_photo(jpeg(1), strength, seed) for strength in (0.3, 0.6) for seed in (1, 2)}) == 4


def test_a_label_is_counted_once_however_often_it_is_learnt():
    """Another label for the same photo is another one."""
    accepted = Accepted()
    for labels in ([0, 1], [0, 0]):
        accepted.count(["a", "b"], np.array(labels), np.array([0, OTHER]))
    assert (accepted.labels, accepted.wrong) == (3, 2)


def test_the_interval_is_that_of_the_mean():
    """Equal values leave no doubt; others lie on both sides of their mean."""
    assert interval([0.5] * 5) == (0.5, 0.5)
    low, high = interval([0.4, 0.5, 0.6, 0.5, 0.5])
    assert 0.4 < low < 0.5 < high < 0.6


def test_the_whole_policy_keeps_its_rules(world):
    """At most the budget is asked for, neither class is learnt from, and a fresh audit photo judges only."""
    full = Full(world, 0)
    for number, round_ in enumerate(world.rounds):
        asked = Counter(samples.human is not None for samples in full.samples)[True]
        full.run_round(round_.stream)
        assert Counter(samples.human is not None for samples in full.samples)[True] - asked <= REVIEWS
        fresh = [
            samples
            for samples in full.samples
            if samples.lane == "audit" and samples.harvested_round == number
        ]
        assert fresh
        assert not {samples.photo_id for samples in fresh} & {photo for photo, _ in full.accepted.said}
    assert {samples.lane for samples in full.samples} == {None, "auto", "hard", "audit"}
    learnt = [samples for samples in full.samples if full._is_learnt(samples)]
    assert not [samples for samples in learnt if samples.human == NEITHER]
    others = [samples for samples in full.samples if samples.truth == OTHER]
    assert {samples.human for samples in others} == {None, NEITHER}
    assert Counter(samples.lane for samples in others)["hard"] > 0.8 * len(others), (
        "neither class is not auto"
    )


def test_policies_are_played_on_the_same_world(world):
    """Who learns nothing accepts nothing; who believes the model accepts photos of neither class."""
    frozen, all_labels, full = (play(world, kind(world, 0)) for kind in (Policy, AllLabels, Full))
    believing = play(world, Confident(world, 0, 0.5))
    assert (frozen.accepted, frozen.worst_step) == (0, 0.0)
    assert (believing.accepted, believing.wrong >= 60) == (300, True)
    assert full.wrong < believing.wrong / 3
    assert set(full.verdicts) <= {"promote", "keep", "inconclusive"}
    told = summary([frozen, all_labels], [frozen, frozen])
    assert told["accepted"] == 0
    assert told["wrong_share"] is None
    gains = np.mean(all_labels.accuracy) - np.mean(frozen.accuracy)
    assert told["gain"] == pytest.approx(gains / 2, abs=1e-4)
    assert told["last"] == pytest.approx((frozen.accuracy[-1] + all_labels.accuracy[-1]) / 2, abs=1e-4)


@pytest.mark.parametrize("kind", [RandomLabels, HardOnly])
def test_a_budget_is_a_budget(world, kind):
    """People label as many photos a round as there are reviews; neither class teaches nothing."""
    policy = kind(world, 0)
    policy.run_round(world.rounds[0].stream)
    learnt = len(policy.labels) // 2 - len(world.labelled)
    assert 0 < learnt <= REVIEWS


def test_the_gate_stops_a_model_with_swapped_labels(world):
    """It calls every cat a dog, and is kept out."""
    assert gate_on_swapped_labels(world) == "keep"
