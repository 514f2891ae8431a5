"""Rules of cloud/retraining/triggers.py: a round starts for a reason, after a pause."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cloud.retraining.triggers import Facts, Triggers, decide, stability_index
from tests.cloud.judging import audit

RULES = Triggers()
SCORES = arrays.arrays(float, st.integers(1, 300), elements=st.floats(0, 1))


def confidences(seed: int, count: int = 400, power: float = 8.0) -> np.ndarray:
    """Draw confidences of which most are high; the lower the power, the less."""
    return np.random.default_rng(seed).beta(power, 1.0, count)


@pytest.mark.parametrize(
    ("facts", "trigger"),
    [
        (Facts(), None),
        (Facts(labels=19), None),
        (Facts(labels=20), "labels"),
        (Facts(samples=999), None),
        (Facts(samples=1000), "samples"),
        (Facts(samples=1000, labels=20), "labels"),
        (Facts(labels=20, last_round_s=599.0), None),
        (Facts(labels=20, last_round_s=600.0), "labels"),
        (Facts(labels=20, last_round_s=-5.0), "labels"),
        (Facts(reference=confidences(1), recent=confidences(2)), None),
        (Facts(reference=confidences(1), recent=confidences(2, power=3.0)), "drift"),
        (Facts(reference=confidences(1), recent=confidences(2, 399, power=3.0)), None),
        (Facts(audit=audit(30, 22), accuracy_low=0.95), "audit"),
        (Facts(audit=audit(30, 28), accuracy_low=0.95), None),
        (Facts(audit=audit(29, 0), accuracy_low=0.95), None),
        (Facts(audit=audit(30, 0)), None),
    ],
)
def test_each_reason_starts_a_round_at_its_bound(facts: Facts, trigger: str | None) -> None:
    """Labels, samples, drift and audits: not before there is enough, and not in the pause after a round."""
    reason = decide(facts, RULES)
    assert (reason and reason.trigger) == trigger


def test_the_reason_is_said_with_its_figures() -> None:
    """People read the words, programs the facts."""
    reason = decide(Facts(audit=audit(40, 30), accuracy_low=0.95), RULES)
    assert reason is not None
    assert reason.words == "75.0% right in 40 audits, where the card says at least 95.0%"
    assert reason.facts == {"audits": 40, "accuracy": 0.75}
    drift = decide(Facts(reference=confidences(1), recent=confidences(2, power=2.0)), RULES)
    assert drift is not None
    assert drift.facts["stability_index"] > 0.25
    assert drift.words.startswith("the confidences of the latest 400 samples drifted: ")
    told = decide(Facts(reference=confidences(1), recent=confidences(2, power=2.0), compared="audits"), RULES)
    assert told is not None
    assert told.words.startswith("the confidences of the latest 400 audits drifted: ")


COUNT = st.integers(0, 3000)
FACTS = st.builds(
    Facts,
    labels=COUNT,
    samples=COUNT,
    reference=SCORES,
    recent=SCORES,
    accuracy_low=st.none() | st.floats(0, 1),
    last_round_s=st.none() | st.floats(-1e3, 1e6),
).flatmap(
    lambda facts: st.integers(0, 200).flatmap(
        lambda audits: st.integers(0, audits).map(
            lambda right: dataclasses.replace(facts, audit=audit(audits, right))
        )
    )
)


@given(FACTS, st.integers(0, 100))
def test_more_of_a_reason_is_a_reason_too(facts: Facts, more: int) -> None:
    """No count that starts a round starts none when it grows; and in the pause nothing does."""
    if decide(facts, RULES) is not None:
        grown = dataclasses.replace(facts, labels=facts.labels + more, samples=facts.samples + more)
        assert decide(grown, RULES) is not None
    assert decide(dataclasses.replace(facts, last_round_s=1.0), RULES) is None


@given(SCORES, SCORES, st.randoms())
def test_the_stability_index_is_a_distance(reference: np.ndarray, recent: np.ndarray, chance: object) -> None:
    """At least 0, finite, 0 for the same scores in any order."""
    assert 0 <= stability_index(reference, recent) < 100
    assert stability_index(reference, np.random.default_rng(0).permutation(reference)) == pytest.approx(0)


def test_chance_alone_is_no_drift() -> None:
    """Of two draws from one distribution, 400 each, none in 300 passes the bound; a clear shift does."""
    same = [stability_index(confidences(n), confidences(1000 + n)) for n in range(300)]
    moved = [stability_index(confidences(n), confidences(1000 + n, power=3.0)) for n in range(300)]
    assert max(same) < RULES.stability < min(moved)
