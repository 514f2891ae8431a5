"""Which classes a model has, and which examples are refused."""

import re
from collections.abc import Sequence

import pytest

from cloud.dataset.example import Example, Source, TrainingError, class_names, classes_below_minimum
from schemas.messages import NEITHER


def example(label: str, source: Source = "human", weight: float = 1.0) -> Example:
    """An example whose image nobody looks at."""
    return Example(photo_id="ab" * 16, image=b"", label=label, source=source, weight=weight)


def test_classes_come_from_the_labels_in_order() -> None:
    """Without a wish, the classes are the labels, sorted; with one, they keep its order."""
    examples = [example("fox"), example("cat"), example("dog"), example("cat", "edge")]
    assert class_names(examples) == ("cat", "dog", "fox")
    assert class_names(examples, ["fox", "dog", "cat"]) == ("fox", "dog", "cat")


def test_a_slip_of_the_pen_makes_no_class() -> None:
    """Beside two classes of three human labels each, one of fewer waits; gold and models count for none."""
    settled = [example(label) for label in ("cat", "dog") for _ in range(3)]
    more = [example("cta"), example("cow"), example("cow"), example("cow", "edge"), example("fox", "teacher")]
    gold = [example("emu") for _ in range(9)]
    assert classes_below_minimum([*settled, *more], gold) == {"cta": 1, "cow": 2, "fox": 0, "emu": 0}
    assert classes_below_minimum([*settled, example("cow"), *more]) == {"cta": 1, "fox": 0}
    assert classes_below_minimum([example("cat"), *settled[3:], *more], gold) == {}


@pytest.mark.parametrize(
    ("examples", "wanted", "reason"),
    [
        ([example("cat")], None, "at least two distinct names, got ['cat']"),
        ([], None, "at least two distinct names, got []"),
        ([example("cat"), example("dog")], ["cat", "cat"], "at least two distinct names"),
        ([example("cat"), example("dog")], ["cat", "dog", "fox"], "class 'fox': expected at least one human"),
        ([example("cat"), example("dog", "edge")], None, "class 'dog': expected at least one human"),
        ([example("cat"), example("dog"), example("fox")], ["cat", "dog"], f"photo {'ab' * 16}: expected a"),
        ([example("cat"), example("dog", weight=0)], None, f"photo {'ab' * 16}: expected a weight above 0"),
        (
            [example("cat"), example(NEITHER)],
            None,
            "class 'neither': expected a class, got the word for none",
        ),
        ([example("cat"), example("a\nb")], None, "class 'a\\nb': expected a name on one line"),
        ([example("cat"), example("a\u2028b")], None, "class 'a\\u2028b': expected a name on one line"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_name(
    examples: Sequence[Example], wanted: Sequence[str] | None, reason: str
) -> None:
    """An error names the class or the photo, what was expected and what was there."""
    with pytest.raises(TrainingError, match=re.escape(reason)):
        class_names(examples, wanted)
