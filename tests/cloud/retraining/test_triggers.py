"""Rules of cloud/retraining/triggers.py: a round starts for a reason, after a pause."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cloud.retraining.triggers import DriftAlarm, Signals, Triggers, decide, labels_missing, stability_index
from tests.cloud.judging import audit

RULES = Triggers()
SCORES = arrays.arrays(float, st.integers(1, 300), elements=st.floats(0, 1))


def confidences(seed: int, count: int = 400, power: float = 8.0) -> np.ndarray:
    """Draw confidences, mostly high ones; a lower power gives lower ones."""
    return np.random.default_rng(seed).beta(power, 1.0, count)


@pytest.mark.parametrize(
    ("facts", "trigger"),
    [
        (Signals(), None),
        (Signals(labels=19), None),
        (Signals(labels=20), "labels"),
        (Signals(samples=999), None),
        (Signals(samples=1000), "samples"),
        (Signals(samples=1000, labels=20), "labels"),
        (Signals(labels=20, last_round_s=599.0), None),
        (Signals(labels=20, last_round_s=600.0), "labels"),
        (Signals(labels=20, last_round_s=-5.0), "labels"),
        (Signals(labels=20, samples=1000, classes=1), None),
        (Signals(labels=20, classes=2), "labels"),
        (Signals(reference=confidences(1), recent=confidences(2)), None),
        (Signals(reference=confidences(1), recent=confidences(2, power=3.0)), "drift"),
        (Signals(reference=confidences(1), recent=confidences(2, 399, power=3.0)), None),
        (Signals(audit=audit(30, 22), accuracy_low=0.95), "audit"),
        (Signals(audit=audit(30, 28), accuracy_low=0.95), None),
        (Signals(audit=audit(29, 0), accuracy_low=0.95), None),
        (Signals(audit=audit(30, 0)), None),
    ],
)
def test_each_trigger_starts_a_round_at_its_threshold(facts: Signals, trigger: str | None) -> None:
    """Labels, samples, drift and audits start a round at their threshold, except in the pause after one.

    Of one class there is none: it would fail, again after each pause.
    """
    reason = decide(facts, RULES)
    assert (reason and reason.trigger) == trigger


def test_a_reason_has_words_and_figures() -> None:
    """A reason has a sentence for people and figures for programs."""
    reason = decide(Signals(audit=audit(40, 30), accuracy_low=0.95), RULES)
    assert reason is not None
    assert reason.words == "75.0% right in 40 audits, where the card says at least 95.0%"
    assert reason.facts == {"audits": 40, "accuracy": 0.75}
    drift = decide(Signals(reference=confidences(1), recent=confidences(2, power=2.0)), RULES)
    assert drift is not None
    assert drift.facts["stability_index"] > 0.25
    assert drift.words.startswith("the confidences of the latest 400 samples drifted: ")
    audits = decide(
        Signals(reference=confidences(1), recent=confidences(2, power=2.0), compared="audits"), RULES
    )
    assert audits is not None
    assert audits.words.startswith("the confidences of the latest 400 audits drifted: ")


COUNT = st.integers(0, 3000)
SIGNALS = st.builds(
    Signals,
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


@given(SIGNALS, st.integers(0, 100))
@settings(deadline=None)
def test_more_labels_or_samples_never_prevent_a_round(facts: Signals, more: int) -> None:
    """More labels or samples never prevent a round; the pause always does."""
    if decide(facts, RULES) is not None:
        grown = dataclasses.replace(facts, labels=facts.labels + more, samples=facts.samples + more)
        assert decide(grown, RULES) is not None
    assert decide(dataclasses.replace(facts, last_round_s=1.0), RULES) is None


@given(SCORES, SCORES)
@settings(deadline=None)
def test_the_stability_index_is_a_distance(reference: np.ndarray, recent: np.ndarray) -> None:
    """It is finite, at least 0, and 0 for the same scores in any order."""
    assert 0 <= stability_index(reference, recent) < 100
    assert stability_index(reference, np.random.default_rng(0).permutation(reference)) == pytest.approx(0)


def test_chance_alone_is_no_drift() -> None:
    """Of 300 pairs of draws from one distribution none is above the threshold; a clear shift always is."""
    same = [stability_index(confidences(n), confidences(1000 + n)) for n in range(300)]
    moved = [stability_index(confidences(n), confidences(1000 + n, power=3.0)) for n in range(300)]
    assert max(same) < RULES.stability < min(moved)


ALARM = DriftAlarm(("the fleet",), 0.0001, 50, 9)


def test_a_drift_alarm_starts_a_round_when_its_labels_are_there() -> None:
    """An alarm alone starts no round: labels of photos since the drift do."""
    assert decide(Signals(alarm=ALARM, drift_labels=9), RULES) is None
    assert decide(Signals(drift_labels=99), RULES) is None
    reason = decide(Signals(alarm=ALARM, drift_labels=10), RULES)
    assert reason is not None
    assert (reason.trigger, reason.facts["labels"]) == ("drift", 10)
    assert reason.words.endswith("(p = 0.0001), and 10 of them are labelled")


def test_an_alarm_names_few_devices() -> None:
    """The sentence names five devices at most."""
    alarm = dataclasses.replace(ALARM, scopes=tuple(f"pi-{n}" for n in range(9)))
    assert "pi-4 and others look" in alarm.words
    assert "pi-5" not in alarm.words


@pytest.mark.parametrize(
    ("labels", "alarm", "drift_labels", "missing"),
    [
        (0, False, 0, 20),
        (15, False, 0, 5),
        (30, False, 0, 0),
        (3, True, 4, 6),
        (3, True, 12, 0),
        (18, True, 0, 2),
    ],
)
def test_labels_that_are_missing_are_those_of_the_nearest_trigger(
    labels, alarm, drift_labels, missing
) -> None:
    """After a drift alarm fewer labels start a round; no count is negative."""
    found = DriftAlarm(("pi-1",), 0.001, 50, 0) if alarm else None
    signals = Signals(labels=labels, alarm=found, drift_labels=drift_labels)
    assert labels_missing(signals, RULES) == missing
