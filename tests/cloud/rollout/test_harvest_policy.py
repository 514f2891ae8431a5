"""Rules of cloud/rollout/harvest_policy.py: what training results and audits change in the rules."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from cloud.evaluation.audit_set import AuditedPhoto
from cloud.rollout.harvest_policy import (
    MIN_AUDITED,
    TARGET_PRECISION,
    auto_helped_at,
    raise_audit_share,
    restore_audit_share,
    tune_rules,
)
from schemas.policy_rules import Caps, HarvestRules
from tests.cloud.bundles import card

RULES = HarvestRules(caps=Caps(per_minute=7), quotas={"cat": 9}, audit_share=0.5)
SHARES = st.floats(0, 1)
UNKNOWN = st.none() | st.just(math.nan)
LABELS = st.sampled_from(("cat", "dog"))
PHOTOS = st.builds(
    AuditedPhoto,
    edge_label=LABELS,
    human_label=LABELS,
    confidence=st.floats(0.7, 1) | SHARES | UNKNOWN,
    inclusion=st.sampled_from((0.01, 0.02, 1.0)) | SHARES | UNKNOWN,
    margin=SHARES | UNKNOWN,
    entropy=SHARES | UNKNOWN,
    novelty=st.floats(0, 2) | UNKNOWN,
)
# A few kinds of photos many times over: drawn one by one there are rarely enough.
AUDITS = st.lists(st.tuples(PHOTOS, st.integers(1, 150)), max_size=8).map(
    lambda kinds: [photo for photo, count in kinds for _ in range(count)]
)
HARVEST = st.builds(
    HarvestRules,
    auto_confidence=SHARES,
    auto_by_class=st.dictionaries(LABELS, SHARES),
    uncertain_above=st.just(1.0) | SHARES,
)


def audits(count: int, confidence: float, *, right: bool = True, **fields: object) -> list[AuditedPhoto]:
    """Return photos that the model labelled as a cat."""
    facts = {"inclusion": 0.02} | fields
    return [AuditedPhoto("cat", "cat" if right else "dog", confidence, **facts)] * count


def thresholds(rules: HarvestRules) -> dict[str, float]:
    return {label: rules.auto_by_class.get(label, rules.auto_confidence) for label in ("cat", "dog")}


@settings(deadline=None)
@given(HARVEST, AUDITS, SHARES)
def test_thresholds_stay_in_range(rules, audited, target):
    """For any audits, NaN included, a threshold that moves ends in [0, 1]."""
    after, reasons = tune_rules(rules, audited, target=target)
    moved = {label for label, value in thresholds(after).items() if value != thresholds(rules)[label]}
    assert len(reasons) == len(moved)
    assert all(0 <= after.auto_by_class[label] <= 1 for label in moved)
    assert structs.replace(after, auto_by_class=rules.auto_by_class) == rules
    assert tune_rules(after, audited, target=target) == (after, [])


@settings(deadline=None)
@given(HARVEST, AUDITS, SHARES, SHARES)
def test_a_higher_target_never_lowers_a_threshold(rules, audited, one, other):
    """A higher precision costs labels, class by class."""
    low, high = (tune_rules(rules, audited, target=target)[0] for target in sorted((one, other)))
    assert all(thresholds(low)[label] <= thresholds(high)[label] for label in ("cat", "dog"))


@settings(deadline=None)
@given(HARVEST, AUDITS.map(lambda photos: photos[: MIN_AUDITED - 1]), SHARES)
def test_without_evidence_nothing_changes(rules, audited, target):
    """With fewer photos than the minimum, of any kind, the rules stay unchanged."""
    assert tune_rules(rules, audited, target=target) == (rules, [])


def test_the_lowest_threshold_shown_to_reach_the_target_is_chosen():
    """With mistakes at 0.85 and below and none above, it is the next step above 0.85."""
    audited = [*audits(20, 0.85, right=False), *audits(30, 0.85), *audits(MIN_AUDITED, 0.93)]
    after, reasons = tune_rules(RULES, audited)
    assert after == structs.replace(RULES, auto_by_class={"cat": 0.855})
    (reason,) = reasons
    assert reason == (
        "auto_confidence of cat 0.9 → 0.855: of 88 audited photos from 0.855 on 100.0% are right"
        " (97.0% to 100.0%), wanted 97.0%"
    )


def test_a_class_that_is_often_wrong_leaves_the_lane():
    """With half the labels wrong at any confidence, the threshold is 1."""
    audited = [photo for right in (True, False) for photo in audits(60, 0.99, right=right)]
    assert tune_rules(RULES, audited)[0].auto_by_class == {"cat": 1.0}


def test_insignificant_audits_change_nothing():
    """One mistake in 100 shows neither that the target is reached nor that it is missed."""
    audited = [*audits(99, 0.85), *audits(1, 0.999, right=False)]
    assert tune_rules(RULES, audited) == (RULES, [])
    assert tune_rules(RULES, audited * 2)[0].auto_by_class == {"cat": 0.85}


@pytest.mark.parametrize(
    "fields", [{"margin": 0.1}, {"entropy": 0.9}, {"novelty": 1.5}, {"inclusion": None}, {"inclusion": 0.0}]
)
def test_photos_that_the_lane_never_admits_do_not_count(fields):
    """Uncertain or novel photos, and photos of unknown inclusion probability."""
    audited = [*audits(MIN_AUDITED, 0.8), *audits(MIN_AUDITED, 0.8, right=False, **fields)]
    assert tune_rules(RULES, audited)[0].auto_by_class == {"cat": 0.8}


def test_photos_count_by_their_sampling_weights():
    """A tenth of the probability is ten times the weight, and unequal weights are less evidence."""
    right = audits(300, 0.8)
    assert tune_rules(RULES, [*right, *audits(1, 0.8, right=False)])[0].auto_by_class == {"cat": 0.8}
    assert tune_rules(RULES, [*right, *audits(1, 0.8, right=False, inclusion=0.002)]) == (RULES, [])


@pytest.mark.parametrize(
    ("auto", "helps", "helped_before", "after"),
    [
        (True, True, True, True),
        (True, True, False, True),
        (True, False, True, False),
        (True, False, False, False),
        (False, False, False, False),
        (False, True, False, True),
        (False, True, True, False),
    ],
)
def test_the_lane_auto_follows_the_cards(auto, helps, helped_before, after):
    """Off while it does not help, on again when it does, unless an operator switched it off."""
    rules = structs.replace(RULES, auto=auto)
    got, reasons = tune_rules(
        rules, auto_helps=helps, auto_helped_before=helped_before, target=TARGET_PRECISION
    )
    assert got == structs.replace(RULES, auto=after)
    assert len(reasons) == (auto != after)


def test_auto_helped_at_uses_the_newest_card_of_that_time():
    """Not a later one; without a card or a time, the lane counts as helpful."""
    first, second = (
        structs.replace(card(number), auto=auto, created_at=f"2026-01-0{number}T00:00:00+00:00")
        for number, auto in ((1, False), (2, True))
    )
    between = first.created_at_ms + 1
    assert not auto_helped_at([first, second], between)
    assert auto_helped_at([first, second], second.created_at_ms)
    assert auto_helped_at([first, second], None)
    assert auto_helped_at([], between)


@given(SHARES, SHARES, SHARES)
def test_a_round_restores_the_audit_share_of_before_the_alarm(
    usual: float, first: float, second: float
) -> None:
    """Any number of alarms only raises the share; afterwards the rules are as they were."""
    rules = structs.replace(RULES, audit_share=usual)
    alarmed, reasons = raise_audit_share(rules, first)
    twice, _ = raise_audit_share(alarmed, second)
    assert (alarmed.audit_share, twice.audit_share) == (max(usual, first), max(usual, first, second))
    assert bool(reasons) == (first > usual)
    restored, _ = restore_audit_share(twice)
    assert restored == rules
    assert restore_audit_share(rules) == (rules, [])
