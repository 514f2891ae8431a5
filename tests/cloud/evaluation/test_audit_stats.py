"""Rules of cloud/evaluation/audit_stats.py: weighted accuracy and the rollback test."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.evaluation.audit_stats import (
    MIN_AUDITS,
    ROLLBACK_P_VALUE,
    AuditStats,
    RolloutAudits,
    equal_accuracy_p_value,
    sampling_weight,
)
from tests.cloud.judging import audit

WEIGHTS = st.floats(1, 1000)


def test_the_sampling_weight_is_the_inverse_of_the_inclusion_probability() -> None:
    """A photo drawn with 1 % weighs 100; with an unknown probability it weighs 1."""
    assert [sampling_weight(inclusion) for inclusion in (0.01, 1.0, None, 0.0)] == [100.0, 1.0, 1.0, 1.0]


def test_accuracy_and_interval_are_weighted() -> None:
    """Photos drawn with 10 % weigh ten times as much, and unequal weights carry less information."""
    both = audit(10, 10, 1.0) + audit(10, 5, 10.0)
    assert (both.photos, both.correct) == (20, 15)
    assert both.accuracy == pytest.approx(60 / 110)
    assert 10 < both.effective_size < 20
    low, high = both.interval
    assert low < both.accuracy < high


@settings(deadline=None)
@given(photos=st.integers(1, 500), weight=WEIGHTS, data=st.data())
def test_equal_weights_change_nothing(photos: int, weight: float, data: st.DataObject) -> None:
    """With one inclusion probability for all photos, its value has no effect."""
    correct = data.draw(st.integers(0, photos))
    weighted, plain = audit(photos, correct, weight), audit(photos, correct)
    assert weighted.accuracy == pytest.approx(plain.accuracy)
    assert weighted.effective_size == pytest.approx(photos)


def test_the_reference_is_the_champion_in_the_same_days() -> None:
    """The champion's audits before the rollout are added only if there are too few since it began."""
    before = audit(300, 300)
    enough, few = audit(MIN_AUDITS, 10), audit(MIN_AUDITS - 1, 10)
    assert RolloutAudits(champion=enough, champion_before=before).reference() == (
        enough,
        "since the trial began",
    )
    assert RolloutAudits(champion=few, champion_before=before).reference() == (
        few + before,
        "since 14 days before the trial",
    )


@settings(deadline=None)
@given(photos=st.integers(1, 500), others=st.integers(1, 500), data=st.data())
def test_an_equally_accurate_version_is_never_rejected(photos: int, others: int, data: st.DataObject) -> None:
    """Equal accuracy, a champion without a correct answer and a challenger without a mistake never reject."""
    correct = data.draw(st.integers(0, photos))
    assert equal_accuracy_p_value(audit(photos, correct), audit(photos, correct)) >= 0.5
    assert equal_accuracy_p_value(audit(others, 0), audit(photos, correct)) > ROLLBACK_P_VALUE
    assert equal_accuracy_p_value(audit(photos, correct), audit(others, others)) > ROLLBACK_P_VALUE


@pytest.mark.parametrize(
    ("champion", "challenger"),
    [((8, 8), (7, 1)), ((20, 19), (6, 1)), ((50, 47), (8, 3)), ((100, 95), (9, 4)), ((400, 376), (80, 64))],
)
def test_few_audits_reject_a_bad_version(champion: tuple[int, int], challenger: tuple[int, int]) -> None:
    """Few audits suffice to reject a clearly bad version; a slightly worse one needs more."""
    assert equal_accuracy_p_value(audit(*champion), audit(*challenger)) < ROLLBACK_P_VALUE


@settings(deadline=None)
@given(photos=st.integers(1, 10_000), others=st.integers(0, 10_000))
def test_a_version_without_a_mistake_is_never_rejected(photos: int, others: int) -> None:
    """However many audits a flawless champion has; nor is a challenger without audits."""
    assert equal_accuracy_p_value(audit(photos, photos), audit(others, others)) > 0.05


@pytest.mark.parametrize("photos", [1, 2, 3])
def test_one_mistake_among_the_first_audits_does_not_reject(photos: int) -> None:
    """A version that is 99 % accurate makes it in one to three of a hundred rollouts."""
    assert equal_accuracy_p_value(audit(400, 396), audit(photos, photos - 1)) >= 0.01


@pytest.mark.parametrize("known", [MIN_AUDITS, 400])
def test_false_alarms_are_rare(known: int) -> None:
    """Of equally accurate versions, tested after each of 200 weighted audits, fewer than 2 % are rejected.

    Whether the champion has few audits or many.
    """
    generator, false = np.random.default_rng(7), 0
    accuracies, shares = (0.6, 0.8, 0.9, 0.97, 0.99), (0.1, 0.5)
    for number in range(300):
        accuracy, share = accuracies[number % 5], shares[number % 2]
        audits = [audit(known, generator.binomial(known, accuracy), 50.0), AuditStats()]
        for _ in range(200):
            to_challenger = bool(generator.random() < share)
            weight = float(generator.choice([50.0, 100.0]))
            correct = bool(generator.random() < accuracy)
            audits[to_challenger] += AuditStats.from_outcomes([(correct, weight)])
            if to_challenger and equal_accuracy_p_value(*audits) < ROLLBACK_P_VALUE:
                false += 1
                break
    assert false / 300 < 0.02


def test_one_false_edge_does_not_outweigh_the_others() -> None:
    """A probability of a draw that no policy sets is not believed: ten such photos stay some of many."""
    assert sampling_weight(1e-45) == 1000.0
    honest = AuditStats.from_outcomes([(True, sampling_weight(0.02))] * 2000)
    false = AuditStats.from_outcomes([(False, sampling_weight(1e-30))] * 10)
    assert (honest + false).accuracy > 0.9
