"""The gate: what is promoted, what is not, and that no sequence of models slides downwards."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.evaluation.promotion_gate import Answers, Evidence, Rules, compare, judge, mcnemar

CLASSES = ("cat", "dog")


def probabilities(right: np.ndarray, truth: np.ndarray, confidence: float | None = None) -> np.ndarray:
    """Return answers that are right where told, and as sure as told, or as they are right on the whole."""
    sure = max(0.51, float(right.mean())) if confidence is None else confidence
    answers = np.where(right, truth, 1 - truth)
    rows = np.full((len(truth), 2), 1 - sure)
    rows[np.arange(len(truth)), answers] = sure
    return rows


def answers(champion: np.ndarray, challenger: np.ndarray, truth: np.ndarray) -> Answers:
    return Answers(
        probabilities(champion, truth), probabilities(challenger, truth), truth, np.ones(len(truth))
    )


def right(count: int, wrong: int, first: int = 0) -> np.ndarray:
    """Return which of `count` photos are right: all but `wrong` of them, from `first` on."""
    mask = np.ones(count, bool)
    mask[first : first + wrong] = False
    return mask


TRUTH = np.arange(400) % 2


def verdict(champion: np.ndarray, challenger: np.ndarray, truth: np.ndarray = TRUTH, **options: object):
    best = options.pop("best_gold_accuracy", float(champion.mean()))
    evidence = Evidence(answers(champion, challenger, truth), best, CLASSES, **options)  # type: ignore[arg-type]  # a test's own words
    return judge(evidence, champion=1)


def test_mcnemar_is_the_exact_binomial_test():
    """The p-values are those of tossing a coin for each disagreement."""
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(0, 5) == 2 / 32
    assert mcnemar(5, 0) == 2 / 32
    assert mcnemar(1, 9) == pytest.approx(22 / 1024)
    assert mcnemar(500, 500) == 1.0


def test_a_better_model_is_promoted_and_the_reason_says_by_how_much():
    """From 95 to 99 per cent of 400 photos: promoted."""
    said = verdict(right(400, 20), right(400, 4))
    assert said.decision == "promote"
    assert said.champion == 1
    assert "95.0% → 99.0%" in said.reasons[0]
    assert (said.gold.only_champion, said.gold.only_challenger) == (0, 16)
    assert said.gold.low > 0


def test_a_worse_model_is_kept_out():
    """From 99 to 95 per cent, and labels swapped: kept out."""
    assert verdict(right(400, 4), right(400, 20)).decision == "keep"
    swapped = verdict(right(400, 20), ~right(400, 20))
    assert swapped.decision == "keep"
    assert any("gold accuracy 95.0% → 5.0%" in reason for reason in swapped.reasons)


def test_too_few_gold_photos_tell_nothing():
    """Twenty photos without a mistake do not show that there are no losses: the champion stays."""
    truth = np.arange(20) % 2
    said = verdict(right(20, 2), right(20, 0), truth)
    assert said.decision == "inconclusive"
    assert "at least 150 are needed" in said.reasons[0]


def test_a_loss_that_is_not_excluded_is_inconclusive():
    """As many right as before, but others: the interval reaches below what is allowed."""
    said = verdict(right(400, 40), right(400, 40, first=200))
    assert said.decision == "inconclusive"
    assert "is not excluded" in said.reasons[0]


def test_small_losses_do_not_add_up():
    """Better than the champion, but too far below the best one before it: kept out."""
    said = verdict(right(400, 20), right(400, 16), best_gold_accuracy=0.99)
    assert said.decision == "keep"
    assert said.reasons == ["gold accuracy 3.0 points below 99.0%, the best of a champion so far"]


def test_no_class_pays_for_another():
    """More right over all, but cats lose ten points of recall: kept out, and the class is named."""
    cats, dogs = TRUTH == 0, TRUTH == 1
    champion, challenger = np.ones(400, bool), np.ones(400, bool)
    champion[np.flatnonzero(dogs)[:60]] = False
    challenger[np.flatnonzero(cats)[:20]] = False
    said = verdict(champion, challenger)
    assert said.decision == "keep"
    assert said.reasons == ["recall of cat -10.0 points on 200 photos: worse"]


def test_a_model_that_is_too_sure_is_kept_out():
    """The same answers with worse confidence: kept out."""
    same = right(400, 80)
    evidence = Evidence(
        Answers(probabilities(same, TRUTH, 0.8), probabilities(same, TRUTH, 0.999), TRUTH, np.ones(400)),
        0.8,
        CLASSES,
    )
    said = judge(evidence, champion=1)
    assert said.decision == "keep"
    assert "calibration error +19.9 points" in said.reasons[0]


def test_a_slow_model_is_kept_out():
    """More than a tenth slower: kept out, however good; the same speed is fine."""
    better = right(400, 20), right(400, 4)
    assert verdict(*better, latency_ratio=1.5).reasons == [
        "latency 1.50 times the champion's, at most 1.1 is allowed"
    ]
    assert verdict(*better, latency_ratio=1.05).decision == "promote"


def test_the_audit_slice_has_a_veto():
    """Better on gold and worse on what the cameras see now: kept out."""
    audit = answers(right(400, 4), right(400, 40), TRUTH)
    said = verdict(right(400, 20), right(400, 4), audit=audit)
    assert said.decision == "keep"
    assert "audit accuracy 99.0% → 90.0%" in said.reasons[0]


@given(lost=st.integers(1, 5), tied=st.integers(0, 40))
@settings(deadline=None, max_examples=20)
def test_a_handful_of_audit_photos_is_no_veto(lost, tied):
    """Of up to five disagreements no test can show anything, even if all of them speak for the champion."""
    truth = np.zeros(lost + tied, int)
    audit = answers(right(lost + tied, 0), right(lost + tied, lost), truth)
    assert verdict(right(400, 20), right(400, 4), audit=audit).decision == "promote"


def test_without_gold_photos_the_champion_stays():
    """Nothing to judge on is the least that a gold set can have; the audit slice keeps its veto."""
    assert judge(Evidence(None, 0.0, CLASSES), champion=1).decision == "inconclusive"
    audit = answers(right(400, 4), right(400, 40), TRUTH)
    assert judge(Evidence(None, 0.0, CLASSES, audit), champion=1).decision == "keep"


def test_audit_photos_count_by_what_they_stand_for():
    """A photo that was drawn with a tenth of the probability stands for ten times as many."""
    weights = np.array([1.0] * 10 + [10.0] * 10)
    truth = np.zeros(20, int)
    both = probabilities(right(20, 10), truth), probabilities(right(20, 10, first=10), truth)
    found = compare(Answers(*both, truth, weights))
    assert found.champion == pytest.approx(100 / 110)
    assert found.challenger == pytest.approx(10 / 110)


def test_the_same_evidence_gives_the_same_verdict():
    """The resampling has a seed."""
    one, other = (verdict(right(400, 40), right(400, 40, first=20)) for _ in range(2))
    assert one == other


@given(
    wrong=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 340)), min_size=1, max_size=6),
    loss=st.sampled_from([0.01, 0.02, 0.05]),
)
@settings(deadline=None, max_examples=40)
def test_no_sequence_of_models_slides_downwards(wrong, loss):
    """Whatever comes, the one in service is never further below the best before it than is allowed."""
    champion = right(400, 20)
    best = float(champion.mean())
    for count, first in wrong:
        challenger = right(400, count, first)
        evidence = Evidence(answers(champion, challenger, TRUTH), best, CLASSES)
        if judge(evidence, champion=1, rules=Rules(accuracy_loss=loss)).decision == "promote":
            champion = challenger
            best = max(best, float(champion.mean()))
        assert champion.mean() >= best - loss - 1e-9
