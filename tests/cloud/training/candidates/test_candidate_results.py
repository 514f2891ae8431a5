"""Rules of cloud/training/candidates/candidate_results.py: which backbones are tried, and which one wins."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from cloud.dataset.example import Example
from cloud.modeling.arrays import Floats, Ints, softmax
from cloud.modeling.backbones import COMPACT, EFFICIENTNET_LITE0, EFFICIENTNET_LITE0_GRID, Backbone
from cloud.modeling.linear_head import Head
from cloud.modeling.offset_head import apply_head
from cloud.progress import NoProgress
from cloud.training.candidates.candidate_evaluation import MIN_WHITENED_LABELS, evaluate_backbone
from cloud.training.candidates.candidate_results import (
    ENOUGH,
    MIN_PRETRAINED_LABELS,
    MIN_SCRATCH_LABELS,
    CandidateResults,
    better,
    is_worth_trying,
)
from cloud.training.candidates.candidates import HUMAN, HeldOut
from cloud.training.candidates.learners import Fitted, FrozenLearner
from cloud.training.groups.heads import with_answer_heads

# Importing TensorFlow 2.21 with a current NumPy and protobuf warns about their own deprecated names.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(tensorflow|keras|numpy|google).*")


def results(
    backbone: Backbone, *, wrong: int, held_out: range = range(100), human: int = MIN_SCRATCH_LABELS
) -> CandidateResults:
    """Results of a backbone that answers the first `wrong` of its held-out labels wrongly."""
    labels = np.arange(len(held_out)) % 2
    logits = np.eye(2)[labels] * 4.0
    logits[:wrong] = logits[:wrong, ::-1]
    examples = [
        Example(str(number), b"", "a", "human" if number < human else "edge") for number in range(400)
    ]
    return CandidateResults(
        classes=("a", "b"),
        examples=examples,
        gold=[],
        fitted={HUMAN: Fitted(None, Head.identity(2), np.arange(human))},
        held_out={HUMAN: HeldOut(logits, labels, np.array(held_out))},
        on_gold={},
        chosen=HUMAN,
        training_embeddings=np.zeros((human, 2), np.float32),
        backbone=backbone,
    )


def test_a_network_is_trained_from_scratch_where_it_may_pay() -> None:
    """It takes enough human labels, and mistakes of the pretrained network on held-out ones."""
    mistaken = results(EFFICIENTNET_LITE0, wrong=30)
    assert is_worth_trying(mistaken, COMPACT)
    assert not is_worth_trying(results(EFFICIENTNET_LITE0, wrong=30, human=MIN_SCRATCH_LABELS - 1), COMPACT)
    assert not is_worth_trying(results(EFFICIENTNET_LITE0, wrong=int(100 * (1 - ENOUGH)) - 1), COMPACT)
    assert not is_worth_trying(results(EFFICIENTNET_LITE0, wrong=0, held_out=range(0)), COMPACT)
    assert not is_worth_trying(results(COMPACT, wrong=30), COMPACT)


def test_another_pretrained_network_needs_fewer_labels() -> None:
    """It waits until held-out labels can rank two networks, and no longer."""
    few, enough = (
        results(EFFICIENTNET_LITE0, wrong=30, human=MIN_PRETRAINED_LABELS - short) for short in (1, 0)
    )
    assert not is_worth_trying(few, EFFICIENTNET_LITE0_GRID)
    assert is_worth_trying(enough, EFFICIENTNET_LITE0_GRID)


@pytest.mark.parametrize(
    ("wrong", "winner"),
    [(5, "compact"), (30, "efficientnet-lite0"), (20, "efficientnet-lite0"), (19, "efficientnet-lite0")],
)
def test_the_lower_held_out_loss_wins(wrong: int, winner: str) -> None:
    """The other backbone wins if its loss is lower by more than the noise; the loser is kept on the record.

    One mistake less of a hundred is no more than the standard error of that difference.
    """
    one, other = results(EFFICIENTNET_LITE0, wrong=20), results(COMPACT, wrong=wrong)
    best = better(one, other)
    assert best.backbone.name == winner
    assert {best.backbone.name, *(loser.backbone.name for loser in best.others)} == {
        "efficientnet-lite0",
        "compact",
    }


def test_backbones_are_compared_on_the_same_labels() -> None:
    """A training from scratch holds out fewer labels: mistakes on other ones do not count."""
    # The 20 mistakes are at positions 0 to 19, the labels of both at 50 to 99.
    one = results(EFFICIENTNET_LITE0, wrong=20)
    other = results(COMPACT, wrong=2, held_out=range(50, 100))
    assert better(one, other).backbone.name == "efficientnet-lite0"


def test_without_common_labels_the_first_one_stays() -> None:
    """No evidence that the other backbone is better."""
    one = results(EFFICIENTNET_LITE0, wrong=50, held_out=range(50))
    assert (
        better(one, results(COMPACT, wrong=0, held_out=range(50, 100))).backbone.name == "efficientnet-lite0"
    )


def test_all_losers_stay_on_the_record() -> None:
    """With a third backbone, the results of both others are kept."""
    third = replace(COMPACT, name="third")
    best = better(
        better(results(EFFICIENTNET_LITE0, wrong=20), results(COMPACT, wrong=5)), results(third, wrong=1)
    )
    assert best.backbone.name == "third"
    assert sorted(loser.backbone.name for loser in best.others) == ["compact", "efficientnet-lite0"]
    assert all(not loser.others for loser in best.others)


LOUD, QUIET = 0, 25
"""Numbers of an embedding with the deviations 1 and 0.02."""


def embedded(count: int, differ_in: int) -> tuple[NDArray[np.float32], Ints]:
    """Embeddings whose two classes differ in one number."""
    deviations = np.where(np.arange(30) < 20, 1.0, 0.02)
    embeddings = np.random.default_rng(1).normal(size=(count, 30)) * deviations
    labels = np.arange(count) % 2
    embeddings[:, differ_in] += np.where(labels == 1, 2, -2) * deviations[differ_in]
    return embeddings.astype(np.float32), labels


@pytest.mark.parametrize(
    ("count", "differ_in", "whitened"),
    [(200, QUIET, True), (200, LOUD, False), (MIN_WHITENED_LABELS - 1, QUIET, False)],
)
def test_held_out_labels_decide_about_whitening(count: int, differ_in: int, *, whitened: bool) -> None:
    """Heads are whitened where held-out answers are significantly better, and never on few labels."""
    embeddings, labels = embedded(count, differ_in)
    examples = [
        Example(str(number), b"%d" % number, "ab"[label], "human") for number, label in enumerate(labels)
    ]
    learner = FrozenLearner(None, embeddings, 2)
    best = evaluate_backbone(
        EFFICIENTNET_LITE0, learner, ("a", "b"), examples, [], seed=0, progress=NoProgress()
    )
    assert best.whitened == whitened
    # The head that is exported takes the embeddings as they are.
    answers = best.chosen_fit.head.logits(embeddings).argmax(axis=1)
    assert (answers == labels).mean() > (best.held_out[HUMAN].accuracy or 0.0) - 0.05


@pytest.mark.parametrize("gold_agrees", [True, False])
def test_groups_get_heads_on_the_answers_of_a_network_of_their_own(*, gold_agrees: bool) -> None:
    """Held-out answers are by another network than the final one: no embedding is used; gold has a veto."""
    draw = np.random.default_rng(0)
    head = Head(draw.normal(size=(COMPACT.embedding_dim, 2)), np.array([0.5, -0.5]))

    def photos(count: int, *, mirrored: bool) -> list[Example]:
        labels = [at % 2 for at in range(count)]
        return [
            Example(f"{at:032x}", b"", "ab"[label ^ mirrored], "human", group="other" if mirrored else "same")
            for at, label in enumerate(labels)
        ]

    def answered(some: list[Example], *, mirrored: bool) -> Floats:
        truth = np.array(["ab".index(one.label) ^ mirrored for one in some])
        return 3.0 * np.eye(2)[truth] + draw.normal(size=(len(some), 2))

    kinds = (False, True)
    examples = [one for mirrored in kinds for one in photos(40, mirrored=mirrored)]
    logits = np.concatenate(
        [answered(photos(40, mirrored=mirrored), mirrored=mirrored) for mirrored in kinds]
    )
    labels = np.array(["ab".index(one.label) for one in examples])
    gold = photos(30, mirrored=True)
    found = with_answer_heads(
        CandidateResults(
            ("a", "b"),
            examples,
            gold,
            {HUMAN: Fitted(None, head, np.arange(80))},
            {HUMAN: HeldOut(logits, labels, np.arange(80))},
            {HUMAN: answered(gold, mirrored=gold_agrees)},
            HUMAN,
            np.zeros((80, COMPACT.embedding_dim), np.float32),
            COMPACT,
        ),
        seed=0,
    )
    assert ("other" in found.groups.heads) == gold_agrees
    if gold_agrees:
        assert (found.gold_answers.argmax(axis=1) == ["ab".index(one.label) for one in gold]).mean() > 0.9
        embedded = draw.normal(size=(50, COMPACT.embedding_dim))
        shared = softmax(head.logits(embedded) / found.held_out[HUMAN].temperature)
        by_group = apply_head(found.groups.heads["other"], shared, embedded)
        assert (by_group.argmax(axis=1) != shared.argmax(axis=1)).mean() > 0.9
