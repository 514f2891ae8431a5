"""What a training prints of its candidates."""

from pathlib import Path

import pytest
from msgspec import structs

from cli.cloud.verdict import show_groups, show_trained
from cloud.registry.model_card import Candidate, GroupOutcome
from cloud.training.packaging import Trained
from tests.cloud.bundles import card


@pytest.mark.parametrize(
    ("gold", "held_out", "said"),
    [
        (0.75, 0.9, ", 75.0% on gold"),
        (None, 0.9, ", 90.0% on 40 held-out labels"),
        (None, None, ""),
    ],
)
def test_accuracy_is_on_gold_else_on_held_out_labels(capsys, gold, held_out, said):
    """A first training has no gold set, and still reports the accuracy, as far as it is known."""
    candidate = Candidate("human", 50, 40, 0.3, held_out, gold)
    made = structs.replace(card(1), candidates=[candidate])
    show_trained(Trained(made, Path("models/1"), Path("models/1.tar"), "0" * 64, 1_000_000))
    assert capsys.readouterr().out.splitlines()[0] == f"→ human: 50 photos{said}"


def test_each_group_of_devices_says_whose_head_answers(capsys):
    """With the figures that chose it, or the reason why it is the shared one."""
    figures = {"labels": 40, "accuracy": 0.5, "group_accuracy": 0.9, "reason": ""}
    groups = [
        GroupOutcome(name="a", served=True, source="own", **figures),
        GroupOutcome(name="b", served=True, source="a", **figures),
        GroupOutcome(name="c", labels=3, served=False, source="", reason="3 held-out labels are too few"),
    ]
    show_groups(groups)
    assert capsys.readouterr().out.splitlines() == [
        "group a: its own head, 50.0% → 90.0% on 40 held-out labels",
        "group b: the head of a, 50.0% → 90.0% on 40 held-out labels",
        "group c: the shared head: 3 held-out labels are too few",
    ]
