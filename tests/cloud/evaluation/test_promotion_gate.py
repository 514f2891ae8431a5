"""Rules of cloud/evaluation/promotion_gate.py: what is promoted, and that accuracy never drifts down."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.evaluation.paired_comparison import PairedPredictions
from cloud.evaluation.promotion_gate import Evidence, GateLimits, Verdict, decide_promotion

CLASSES = ("cat", "dog")


def probabilities(right: np.ndarray, truth: np.ndarray, confidence: float | None = None) -> np.ndarray:
    """Return answers that are right by a mask, with that confidence or, by default, a calibrated one."""
    sure = max(0.51, float(right.mean())) if confidence is None else confidence
    answers = np.where(right, truth, 1 - truth)
    rows = np.full((len(truth), 2), 1 - sure)
    rows[np.arange(len(truth)), answers] = sure
    return rows


def answers(champion: np.ndarray, challenger: np.ndarray, truth: np.ndarray) -> PairedPredictions:
    return PairedPredictions(
        probabilities(champion, truth), probabilities(challenger, truth), truth, np.ones(len(truth))
    )


def right(count: int, wrong: int, first: int = 0) -> np.ndarray:
    """Return a mask of `count` photos: all are right but `wrong` of them, from `first` on."""
    mask = np.ones(count, bool)
    mask[first : first + wrong] = False
    return mask


TRUTH = np.arange(400) % 2


def verdict(champion: np.ndarray, challenger: np.ndarray, truth: np.ndarray = TRUTH, **options: object):
    best = options.pop("best_gold_accuracy", float(champion.mean()))
    evidence = Evidence(answers(champion, challenger, truth), best, CLASSES, **options)  # type: ignore[arg-type]  # keywords of the test
    return decide_promotion(evidence, champion=1)


def test_a_better_model_is_promoted():
    """From 95 to 99 % of 400 photos: promoted, and the reason has the figures."""
    result = verdict(right(400, 20), right(400, 4))
    assert result.decision == "promote"
    assert result.champion == 1
    assert "95.0% → 99.0%" in result.reasons[0]
    assert (result.gold.only_champion, result.gold.only_challenger) == (0, 16)
    assert result.gold.low > 0


def test_a_worse_model_is_not_promoted():
    """From 99 to 95 %, or with swapped labels: not promoted."""
    assert verdict(right(400, 4), right(400, 20)).decision == "keep"
    swapped = verdict(right(400, 20), ~right(400, 20))
    assert swapped.decision == "keep"
    assert any("gold accuracy 95.0% → 5.0%" in reason for reason in swapped.reasons)


def test_too_few_gold_photos_are_inconclusive():
    """Twenty photos without a mistake do not exclude a loss: the champion stays."""
    truth = np.arange(20) % 2
    result = verdict(right(20, 2), right(20, 0), truth)
    assert result.decision == "inconclusive"
    assert "at least 150 are needed" in result.reasons[0]


def test_a_loss_that_is_not_excluded_is_inconclusive():
    """As many right as before, but other photos: the interval reaches below the limit."""
    result = verdict(right(400, 40), right(400, 40, first=200))
    assert result.decision == "inconclusive"
    assert "is not excluded" in result.reasons[0]


def test_small_losses_do_not_add_up():
    """Better than the champion, but too far below the best champion so far: not promoted."""
    result = verdict(right(400, 20), right(400, 16), best_gold_accuracy=0.99)
    assert result.decision == "keep"
    assert result.reasons == ["gold accuracy 3.0 points below 99.0%, the best of a champion so far"]


def test_a_loss_of_recall_in_one_class_is_not_promoted():
    """Better in total, but cats lose ten points of recall: not promoted, and the reason names the class."""
    cats, dogs = TRUTH == 0, TRUTH == 1
    champion, challenger = np.ones(400, bool), np.ones(400, bool)
    champion[np.flatnonzero(dogs)[:60]] = False
    challenger[np.flatnonzero(cats)[:20]] = False
    result = verdict(champion, challenger)
    assert result.decision == "keep"
    assert result.reasons == ["recall of cat -10.0 points on 200 photos: worse"]


def test_a_version_that_lost_a_class_is_not_promoted():
    """Better on photos of the classes that it has, but without one: the reason names it and the way out."""
    result = verdict(right(400, 20), right(400, 4), lost=["fox"])
    assert result.decision == "keep"
    assert result.reasons[0].startswith("class fox is lost")
    assert "gleaner cloud merge-class" in result.reasons[0]


def test_an_overconfident_model_is_not_promoted():
    """The same answers with worse calibration: not promoted."""
    same = right(400, 80)
    evidence = Evidence(
        PairedPredictions(
            probabilities(same, TRUTH, 0.8), probabilities(same, TRUTH, 0.999), TRUTH, np.ones(400)
        ),
        0.8,
        CLASSES,
    )
    result = decide_promotion(evidence, champion=1)
    assert result.decision == "keep"
    assert "calibration error +19.9 points" in result.reasons[0]


@pytest.mark.parametrize(
    ("confidence", "decision"),
    [(0.7, "promote"), (0.9, "promote"), (0.999, "keep")],
)
def test_a_better_model_may_be_too_careful_but_not_too_sure(confidence, decision):
    """From 50 to 90 % right: 70 % sure is only careful, 99.9 % is more than it gets right."""
    before, after = right(400, 200), right(400, 40)
    pair = PairedPredictions(
        probabilities(before, TRUTH, 0.5001), probabilities(after, TRUTH, confidence), TRUTH, np.ones(400)
    )
    result = decide_promotion(Evidence(pair, 0.5, CLASSES), champion=1)
    assert result.decision == decision
    assert any("calibration error" in reason for reason in result.reasons) == (confidence != 0.9)


def test_a_careful_model_that_is_no_better_is_not_promoted():
    """The same answers with too little confidence are a loss without a gain."""
    same = right(400, 40)
    pair = PairedPredictions(
        probabilities(same, TRUTH, 0.9), probabilities(same, TRUTH, 0.7), TRUTH, np.ones(400)
    )
    assert decide_promotion(Evidence(pair, 0.9, CLASSES), champion=1).decision == "keep"


def test_a_slow_model_is_not_promoted():
    """More than 10 % slower is not promoted, however accurate; less than that is."""
    better = right(400, 20), right(400, 4)
    assert verdict(*better, latency_ratio=1.5).reasons == [
        "latency 1.50 times the champion's, at most 1.1 is allowed"
    ]
    assert verdict(*better, latency_ratio=1.05).decision == "promote"


def test_the_audit_slice_has_a_veto():
    """Better on gold but worse on recent camera photos: not promoted."""
    audit = answers(right(400, 4), right(400, 40), TRUTH)
    result = verdict(right(400, 20), right(400, 4), audit=audit)
    assert result.decision == "keep"
    assert "audit accuracy 99.0% → 90.0%" in result.reasons[0]


@given(lost=st.integers(1, 5), tied=st.integers(0, 40))
@settings(deadline=None, max_examples=20)
def test_a_handful_of_audit_photos_is_no_veto(lost, tied):
    """Five disagreements are never significant, even if the champion is right in all of them."""
    truth = np.zeros(lost + tied, int)
    audit = answers(right(lost + tied, 0), right(lost + tied, lost), truth)
    assert verdict(right(400, 20), right(400, 4), audit=audit).decision == "promote"


def test_without_gold_photos_the_champion_stays():
    """Without gold photos the verdict is inconclusive; the audit slice keeps its veto."""
    assert decide_promotion(Evidence(None, 0.0, CLASSES), champion=1).decision == "inconclusive"
    audit = answers(right(400, 4), right(400, 40), TRUTH)
    assert decide_promotion(Evidence(None, 0.0, CLASSES, audit), champion=1).decision == "keep"


def test_the_same_evidence_gives_the_same_verdict():
    """The bootstrap has a seed."""
    one, other = (verdict(right(400, 40), right(400, 40, first=20)) for _ in range(2))
    assert one == other


@given(
    wrong=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 340)), min_size=1, max_size=6),
    loss=st.sampled_from([0.01, 0.02, 0.05]),
)
@settings(deadline=None, max_examples=40)
def test_accuracy_never_drifts_down_over_promotions(wrong, loss):
    """The version in service is never further below the best champion before it than the limit.

    However good each new version is on new labels.
    """
    champion = right(400, 20)
    best = float(champion.mean())
    held_out = answers(right(40, 30), right(40, 0), TRUTH[:40])
    for count, first in wrong:
        challenger = right(400, count, first)
        evidence = Evidence(answers(champion, challenger, TRUTH), best, CLASSES, held_out=held_out)
        if (
            decide_promotion(evidence, champion=1, limits=GateLimits(accuracy_loss=loss)).decision
            == "promote"
        ):
            champion = challenger
            best = max(best, float(champion.mean()))
        assert champion.mean() >= best - loss - 1e-9


def test_reading_a_verdict_loads_no_statistics_library() -> None:
    """Cards, the collector and the rollout controller import the gate's types without scipy's second."""
    script = (
        "import sys, cloud.registry.model_card, cloud.collector.collector, cloud.rollout.controller\n"
        "sys.exit(bool({'scipy', 'sklearn'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


UNCLEAR = right(400, 160), right(400, 164, first=40)
"""A loss on gold that may be chance: one of two points is excluded neither at 2.5 nor at 25 %."""
HINT = right(400, 160), right(400, 150, first=100)
"""A gain that may be chance: a loss of two points is excluded at 25 %."""
LOSS = right(400, 160), right(400, 172)
GAIN = right(400, 160), right(400, 120)


@pytest.mark.parametrize(
    ("gold", "new", "decision"),
    [
        (HINT, (12, 4), "promote"),
        (HINT, (8, 8), "inconclusive"),
        (HINT, (8, 7), "inconclusive"),
        (HINT, (4, 20), "keep"),
        (UNCLEAR, (20, 4), "inconclusive"),
        (LOSS, (20, 4), "keep"),
        (GAIN, (8, 8), "promote"),
        (GAIN, (4, 20), "keep"),
    ],
)
def test_gold_photos_and_new_labels_are_two_witnesses(gold, new, decision):
    """Neither alone could tell: together they promote. A loss that one of them shows keeps the champion."""
    truth = np.arange(400) % 4
    held_out = many_classes(right(40, new[0]), right(40, new[1]), truth[:40])
    before = float(gold[0].mean())
    evidence = Evidence(many_classes(*gold, truth), before, ("0", "1", "2", "3"), held_out=held_out)
    result = decide_promotion(evidence, champion=1)
    assert result.decision == decision
    assert result.held_out.photos == 40
    if gold is HINT and decision == "promote":
        assert "no loss shown; accuracy on new labels of cameras' photos 70.0% → 90.0%" in result.reasons[0]


@pytest.mark.parametrize(("photos", "decision"), [(69, "inconclusive"), (70, "promote")])
def test_few_gold_photos_are_no_witness(photos, decision):
    """Without a mistake, 69 photos do not exclude a loss of two points at 25 %; 70 do."""
    same, truth = right(photos, 0), np.arange(photos) % 4
    new = many_classes(right(40, 12), right(40, 4), truth[:40])
    pair = many_classes(same, same, truth)
    result = decide_promotion(Evidence(pair, 1.0, ("0", "1", "2", "3"), held_out=new), champion=1)
    assert result.decision == decision


def many_classes(champion: np.ndarray, challenger: np.ndarray, truth: np.ndarray) -> PairedPredictions:
    """Return answers among four classes, each as sure as it is right."""

    def rows(right: np.ndarray) -> np.ndarray:
        sure = max(0.4, float(right.mean()))
        answers = np.where(right, truth, (truth + 1) % 4)
        return np.where(np.eye(4)[answers] > 0, sure, (1 - sure) / 3)

    return PairedPredictions(rows(champion), rows(challenger), truth, np.ones(len(truth)))


def without_gold(champion: np.ndarray, challenger: np.ndarray, audit: object = None) -> Verdict:
    """Return the verdict on held-out labels alone."""
    held_out = answers(champion, challenger, np.arange(len(champion)) % 2)
    return decide_promotion(Evidence(None, 0.0, CLASSES, audit, held_out=held_out), champion=1)


def test_without_gold_photos_held_out_labels_judge():
    """Enough held-out labels promote or keep; too few are inconclusive, with a reason and what to do."""
    promoted = without_gold(right(400, 20), right(400, 4))
    assert promoted.decision == "promote"
    assert promoted.held_out.photos == 400
    assert promoted.reasons[0].startswith("no gold photos, judged on held-out labels and audits: held-out")
    assert "95 % interval of the gain" in promoted.reasons[0]
    assert without_gold(right(400, 4), right(400, 20)).decision == "keep"
    few = without_gold(right(20, 2), right(20, 0))
    assert few.decision == "inconclusive"
    assert "at least 150 are needed; import some with 'gleaner cloud import DIR --hold-out" in few.reasons[0]
    nothing = decide_promotion(Evidence(None, 0.0, CLASSES), champion=1)
    assert "gleaner cloud import DIR --hold-out 20%" in nothing.reasons[0]


def test_without_gold_photos_audits_count_too():
    """Audited photos are among those that judge, each once."""
    audit = answers(right(100, 10), right(100, 0), np.arange(100) % 2)
    assert without_gold(right(60, 0), right(60, 0), audit).held_out.photos == 160


def test_a_significant_gain_on_few_photos_is_enough():
    """Eight gains and no loss on twenty photos are better than chance; the recalls still count."""
    truth = np.arange(20) % 2
    assert verdict(right(20, 8), right(20, 0), truth).decision == "promote"
    assert verdict(right(20, 5), right(20, 0), truth).decision == "inconclusive"


def test_a_version_that_is_worse_for_one_group_of_devices_is_kept_back():
    """Although it is better on the whole; a loss that may be chance in one of several groups is none."""
    groups = ["meters"] * 40 + ["doors"] * 40 + [""] * 320
    champion = right(400, 60, first=80)
    found = verdict(champion, right(400, 12), groups=groups)
    assert found.decision == "keep"
    [reason] = found.reasons
    assert reason.startswith("group meters: accuracy 100.0% → 70.0%")
    assert reason.endswith("on 40 photos: worse")
    assert {name: one.photos for name, one in found.groups.items()} == {"doors": 40, "meters": 40}
    by_chance = verdict(champion, right(400, 3), groups=groups)
    assert by_chance.decision == "promote"
    assert verdict(champion, right(400, 12)).decision == "promote"
