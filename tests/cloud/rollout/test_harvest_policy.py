"""Rules of cloud/rollout/harvest_policy.py: the harvest policy follows training and audits alone."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from cloud.evaluation.audit_set import Audited
from cloud.rollout.harvest_policy import ENOUGH, TARGET, helped_at, revised
from schemas.messages import Caps, HarvestRules
from tests.cloud.bundles import card

RULES = HarvestRules(caps=Caps(per_minute=7), quotas={"cat": 9}, audit_share=0.5)
SHARES = st.floats(0, 1)
UNKNOWN = st.none() | st.just(math.nan)
LABELS = st.sampled_from(("cat", "dog"))
PHOTOS = st.builds(
    Audited,
    edge_label=LABELS,
    human_label=LABELS,
    confidence=st.floats(0.7, 1) | SHARES | UNKNOWN,
    inclusion=st.sampled_from((0.01, 0.02, 1.0)) | SHARES | UNKNOWN,
    margin=SHARES | UNKNOWN,
    entropy=SHARES | UNKNOWN,
    novelty=st.floats(0, 2) | UNKNOWN,
)
# A few kinds of photos many times over: drawn one by one there are hardly ever enough.
AUDITS = st.lists(st.tuples(PHOTOS, st.integers(1, 150)), max_size=8).map(
    lambda kinds: [photo for photo, count in kinds for _ in range(count)]
)
HARVEST = st.builds(
    HarvestRules,
    auto_confidence=SHARES,
    auto_by_class=st.dictionaries(LABELS, SHARES),
    uncertain_above=st.just(1.0) | SHARES,
)


def audits(count: int, confidence: float, *, right: bool = True, **fields: object) -> list[Audited]:
    """Return photos that the model called a cat."""
    facts = {"inclusion": 0.02} | fields
    return [Audited("cat", "cat" if right else "dog", confidence, **facts)] * count


def thresholds(rules: HarvestRules) -> dict[str, float]:
    return {label: rules.auto_by_class.get(label, rules.auto_confidence) for label in ("cat", "dog")}


@settings(deadline=None)
@given(HARVEST, AUDITS, SHARES)
def test_thresholds_stay_where_they_mean_something(rules, audited, target):
    """Whatever is audited, also what is no number: a threshold that moves ends in [0, 1]."""
    after, reasons = revised(rules, audited, target=target)
    moved = {label for label, value in thresholds(after).items() if value != thresholds(rules)[label]}
    assert len(reasons) == len(moved)
    assert all(0 <= after.auto_by_class[label] <= 1 for label in moved)
    assert structs.replace(after, auto_by_class=rules.auto_by_class) == rules
    assert revised(after, audited, target=target) == (after, [])


@settings(deadline=None)
@given(HARVEST, AUDITS, SHARES, SHARES)
def test_a_higher_target_never_lowers_a_threshold(rules, audited, one, other):
    """Who wants more labels to be right gets fewer of them, class by class."""
    low, high = (revised(rules, audited, target=target)[0] for target in sorted((one, other)))
    assert all(thresholds(low)[label] <= thresholds(high)[label] for label in ("cat", "dog"))


@settings(deadline=None)
@given(HARVEST, AUDITS.map(lambda photos: photos[: ENOUGH - 1]), SHARES)
def test_without_evidence_nothing_changes(rules, audited, target):
    """Fewer photos than it takes, of whatever kind, leave the rules as they are."""
    assert revised(rules, audited, target=target) == (rules, [])


def test_the_least_threshold_that_is_shown_is_taken():
    """Mistakes at 0.85 and below, none above it: from the next step on the labels are credible."""
    audited = [*audits(20, 0.85, right=False), *audits(30, 0.85), *audits(ENOUGH, 0.93)]
    after, reasons = revised(RULES, audited)
    assert after == structs.replace(RULES, auto_by_class={"cat": 0.855})
    (reason,) = reasons
    assert reason == (
        "auto_confidence of cat 0.9 → 0.855: of 88 audited photos from 0.855 on 100.0% are right"
        " (97.0% to 100.0%), wanted 97.0%"
    )


def test_what_audits_find_wrong_is_not_taken_any_more():
    """Half the labels wrong whatever the confidence: no threshold but certainty is left."""
    audited = [photo for right in (True, False) for photo in audits(60, 0.99, right=right)]
    assert revised(RULES, audited)[0].auto_by_class == {"cat": 1.0}


def test_what_audits_cannot_tell_stays():
    """One mistake in 100 is neither shown to be few nor to be many."""
    audited = [*audits(99, 0.85), *audits(1, 0.999, right=False)]
    assert revised(RULES, audited) == (RULES, [])
    assert revised(RULES, audited * 2)[0].auto_by_class == {"cat": 0.85}


@pytest.mark.parametrize(
    "fields", [{"margin": 0.1}, {"entropy": 0.9}, {"novelty": 1.5}, {"inclusion": None}, {"inclusion": 0.0}]
)
def test_what_the_lane_would_never_take_does_not_count(fields):
    """Photos that are hard for another reason, or stand for nobody knows how many."""
    audited = [*audits(ENOUGH, 0.8), *audits(ENOUGH, 0.8, right=False, **fields)]
    assert revised(RULES, audited)[0].auto_by_class == {"cat": 0.8}


def test_a_photo_counts_for_as_many_as_it_stands_for():
    """One drawn with a tenth of the share stands for ten; unequal weights are less evidence."""
    right = audits(300, 0.8)
    assert revised(RULES, [*right, *audits(1, 0.8, right=False)])[0].auto_by_class == {"cat": 0.8}
    assert revised(RULES, [*right, *audits(1, 0.8, right=False, inclusion=0.002)]) == (RULES, [])


@pytest.mark.parametrize(
    ("auto", "helps", "helped", "after"),
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
def test_the_lane_auto_follows_the_cards(auto, helps, helped, after):
    """Off while it does not help, on again when it does; a person who switched it off is obeyed."""
    rules = structs.replace(RULES, auto=auto)
    got, reasons = revised(rules, helps=helps, helped=helped, target=TARGET)
    assert got == structs.replace(RULES, auto=after)
    assert len(reasons) == (auto != after)


def test_who_set_the_rules_knew_the_newest_card_of_that_time():
    """Not a later one; with no card or no time nothing was known against the lane."""
    first, second = (
        structs.replace(card(number), auto=auto, created_at=f"2026-01-0{number}T00:00:00+00:00")
        for number, auto in ((1, False), (2, True))
    )
    between = first.created_at_ms + 1
    assert not helped_at([first, second], between)
    assert helped_at([first, second], second.created_at_ms)
    assert helped_at([first, second], None)
    assert helped_at([], between)
