"""Rules of cloud/dataset/example.py: which classes a model has, and which examples are refused."""

import re
from collections.abc import Sequence
from dataclasses import replace

import pytest

from cloud.dataset.example import (
    EQUALS_GOLD,
    Example,
    LeftOut,
    Source,
    TrainingError,
    class_names,
    classes_below_minimum,
    gold_overlap,
    sorted_by_content,
)
from schemas.class_names import NEITHER
from schemas.codec import content_id


def example(label: str, source: Source = "human", weight: float = 1.0) -> Example:
    """An example without an image."""
    return Example(photo_id="ab" * 16, image=b"", label=label, source=source, weight=weight)


def test_classes_are_the_labels_or_the_given_names() -> None:
    """By default the classes are the labels, sorted; given names keep their order."""
    examples = [example("fox"), example("cat"), example("dog"), example("cat", "edge")]
    assert class_names(examples) == ("cat", "dog", "fox")
    assert class_names(examples, ["fox", "dog", "cat"]) == ("fox", "dog", "cat")


def test_class_with_few_human_labels_waits() -> None:
    """Once two classes have three human labels, one with fewer waits; gold, teacher and edge do not count."""
    settled = [example(label) for label in ("cat", "dog") for _ in range(3)]
    more = [example("cta"), example("cow"), example("cow"), example("cow", "edge"), example("fox", "teacher")]
    gold = [example("emu") for _ in range(9)]
    assert classes_below_minimum([*settled, *more], gold) == {"cta": 1, "cow": 2, "fox": 0, "emu": 0}
    assert classes_below_minimum([*settled, example("cow"), *more]) == {"cta": 1, "fox": 0}
    assert classes_below_minimum([example("cat"), *settled[3:], *more], gold) == {}


@pytest.mark.parametrize(
    ("examples", "wanted", "reason"),
    [
        ([example("cat")], None, "cannot train with one class, 'cat'; at least two"),
        ([], None, "cannot train with no labelled photos; at least two classes are needed; "),
        ([example("cat"), example("dog")], ["cat", "cat"], "at least two distinct names"),
        (
            [example("cat"), example("dog")],
            ["cat", "dog", "fox"],
            "class 'fox': no human label; label a",
        ),
        ([example("cat"), example("dog", "edge")], None, "class 'dog': no human label"),
        ([example("cat"), example("dog"), example("fox")], ["cat", "dog"], f"photo {'ab' * 16}: expected a"),
        ([example("cat"), example("dog", weight=0)], None, f"photo {'ab' * 16}: expected a weight above 0"),
        ([example("cat"), example(NEITHER)], None, "class 'neither': reserved for photos of no class"),
        ([example("cat"), example("a\nb")], None, "class 'a\\nb': expected a name on one line"),
        ([example("cat"), example("a\u2028b")], None, "class 'a\\u2028b': expected a name on one line"),
    ],
)
def test_unusable_classes_and_examples_are_refused(
    examples: Sequence[Example], wanted: Sequence[str] | None, reason: str
) -> None:
    """The error names the class or the photo and the reason."""
    with pytest.raises(TrainingError, match=re.escape(reason)):
        class_names(examples, wanted)


def test_content_id_is_the_photo_id_of_an_imported_photo() -> None:
    """Equal images have equal content ids, also with different photo ids."""
    photo = Example(photo_id="ab" * 16, image=b"image", label="cat", source="human")
    assert photo.content_id == content_id(b"image") == replace(photo, photo_id="cd" * 16).content_id
    assert sorted_by_content([photo, replace(photo, label="ant")])[0].label == "ant"


def test_many_photos_that_equal_gold_are_a_warning() -> None:
    """With figures and what to do; a few, or a small share, are none."""
    usable = [Example(f"{n:032x}", b"", "cat", "human") for n in range(30)]
    equal = [LeftOut.of(photo, EQUALS_GOLD) for photo in usable]
    warning = gold_overlap(usable[:20], equal[:10])
    assert warning is not None
    assert warning.startswith("10 of 30 labelled photos equal a gold photo")
    assert "'gleaner cloud import DIR --hold-out 20%'" in warning
    assert gold_overlap(usable[:20], equal[:9]) is None
    assert gold_overlap(usable * 2, equal[:10]) is None
