"""Rules of cloud/evaluation/audit_stats.py: what audits show, and how surely."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.evaluation.audit_stats import ENOUGH_AUDITS, SURELY, Audit, Audits, chance_as_good, weight_of
from tests.cloud.judging import audit

WEIGHTS = st.floats(1, 1000)


def _flawless(photos: int) -> Audit:
    return Audit(photos, photos, photos, photos, photos)


def test_a_photo_stands_for_those_that_it_was_drawn_from() -> None:
    """One of a hundred for a hundred; of unknown origin, for itself."""
    assert [weight_of(inclusion) for inclusion in (0.01, 1.0, None, 0.0)] == [100.0, 1.0, 1.0, 1.0]


def test_accuracy_is_of_all_photos_and_not_of_those_that_were_drawn() -> None:
    """Ten of one in ten and ten of all: the first ten count for a hundred, and all say less than twenty."""
    both = audit(10, 10, 1.0) + audit(10, 5, 10.0)
    assert (both.photos, both.right) == (20, 15)
    assert both.accuracy == pytest.approx(60 / 110)
    assert 10 < both.effective < 20
    low, high = both.interval
    assert low < both.accuracy < high


@settings(deadline=None)
@given(photos=st.integers(1, 500), weight=WEIGHTS, data=st.data())
def test_equal_weights_are_no_weights(photos: int, weight: float, data: st.DataObject) -> None:
    """Whatever the share of the lane audit, as long as it stays the same."""
    right = data.draw(st.integers(0, photos))
    weighted, plain = audit(photos, right, weight), audit(photos, right)
    assert weighted.accuracy == pytest.approx(plain.accuracy)
    assert weighted.effective == pytest.approx(photos)


def test_versions_are_held_against_each_other_in_the_same_days() -> None:
    """What the champion did before the trial counts where there is too little since, and that is said."""
    before = audit(300, 300)
    enough, few = audit(ENOUGH_AUDITS, 10), audit(ENOUGH_AUDITS - 1, 10)
    assert Audits(champion=enough, before=before).reference() == (enough, "since the trial began")
    assert Audits(champion=few, before=before).reference() == (
        few + before,
        "since 14 days before the trial",
    )


@settings(deadline=None)
@given(photos=st.integers(1, 500), others=st.integers(1, 500), data=st.data())
def test_who_is_as_good_is_never_surely_worse(photos: int, others: int, data: st.DataObject) -> None:
    """However few photos there are of either."""
    right = data.draw(st.integers(0, photos))
    assert chance_as_good(audit(photos, right), audit(photos, right)) >= 0.5
    assert chance_as_good(audit(others, 0), audit(photos, right)) > SURELY
    assert chance_as_good(audit(photos, right), audit(others, others)) > SURELY


@pytest.mark.parametrize(
    ("champion", "challenger"),
    [((8, 8), (7, 1)), ((20, 19), (6, 1)), ((50, 47), (8, 3)), ((100, 95), (9, 4)), ((400, 376), (80, 64))],
)
def test_a_bad_version_is_found_with_few_photos(
    champion: tuple[int, int], challenger: tuple[int, int]
) -> None:
    """Six to eight are enough for one that gets most wrong; one that is not so bad takes more."""
    assert chance_as_good(audit(*champion), audit(*challenger)) < SURELY


@settings(deadline=None)
@given(photos=st.integers(1, 10_000), others=st.integers(0, 10_000))
def test_who_made_no_mistake_is_never_found_worse(photos: int, others: int) -> None:
    """However much is known of a champion that made none either; nor is one of whom nothing is known."""
    assert chance_as_good(_flawless(photos), _flawless(others)) > 0.05


@pytest.mark.parametrize("photos", [1, 2, 3])
def test_one_mistake_among_the_first_is_no_proof(photos: int) -> None:
    """One that gets 99 % right makes it in one to three of a hundred rollouts."""
    assert chance_as_good(audit(400, 396), audit(photos, photos - 1)) >= 0.01


@pytest.mark.parametrize("known", [ENOUGH_AUDITS, 400])
def test_a_good_version_is_rarely_found_bad(known: int) -> None:
    """Equally good, with weights that differ, looked at after each of 200 audits: below 2 % of rollouts.

    Whether little or much is known of the champion.
    """
    generator, false = np.random.default_rng(7), 0
    accuracies, shares = (0.6, 0.8, 0.9, 0.97, 0.99), (0.1, 0.5)
    for number in range(300):
        accuracy, share = accuracies[number % 5], shares[number % 2]
        audits = [audit(known, generator.binomial(known, accuracy), 50.0), Audit()]
        for _ in range(200):
            tried = bool(generator.random() < share)
            weight = float(generator.choice([50.0, 100.0]))
            audits[tried] += Audit.of([(bool(generator.random() < accuracy), weight)])
            if tried and chance_as_good(*audits) < SURELY:
                false += 1
                break
    assert false / 300 < 0.02
