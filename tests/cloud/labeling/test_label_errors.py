"""Rules of cloud/labeling/label_errors.py: wrong labels are named, right ones are left alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud.dataset.example import Example
from cloud.labeling.label_errors import find_label_errors, rank_label_issues
from cloud.progress import NoProgress

# Importing TensorFlow 2.21 with a current NumPy and protobuf warns about their own deprecated names.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(tensorflow|keras|numpy|google).*")

LITE = "efficientnet-lite0"


def test_swapped_labels_are_named_and_few_others(make_example: Any, tmp_path: Path) -> None:
    """Of 50 photos with 10 % of the labels swapped: at least 4 of the 5, with what they show; few others."""
    right = [make_example(label, seed) for label in ("dawn", "dusk") for seed in range(25)]
    chosen = set(np.random.default_rng(3).permutation(50)[:5])
    other = {"dawn": "dusk", "dusk": "dawn"}
    photos = [
        Example(one.photo_id, one.image, other[one.label], "teacher") if place in chosen else one
        for place, one in enumerate(right)
    ]
    found = find_label_errors(photos, LITE, tmp_path, seed=0, progress=NoProgress())
    swapped = {right[place].photo_id: right[place].label for place in chosen}
    named = {doubt.photo_id: doubt.likely for doubt in found if doubt.photo_id in swapped}
    assert len(named) >= 4
    assert named.items() <= swapped.items()
    assert len(found) - len(named) <= 2
    assert [doubt.credibility for doubt in found] == sorted(doubt.credibility for doubt in found)
    assert {doubt.source for doubt in found if doubt.photo_id in swapped} == {"teacher"}


def test_one_class_or_one_photo_of_each_leaves_nothing_to_doubt(make_example: Any, tmp_path: Path) -> None:
    """Without another name, or another photo to learn it from, no label can be held against anything."""
    one = make_example("dawn", 1)
    assert find_label_errors([one], LITE, tmp_path, seed=0, progress=NoProgress()) == []
    assert (
        find_label_errors([one, make_example("dusk", 1)], LITE, tmp_path, seed=0, progress=NoProgress()) == []
    )


def test_rows_that_contradict_are_issues() -> None:
    """The least credible first; a class that nobody is called by does not matter."""
    labels = np.array([0] * 20 + [2] * 20)
    probabilities = np.full((40, 3), 0.05)
    probabilities[np.arange(40), labels] = 0.9
    assert rank_label_issues(labels, probabilities) == []
    probabilities[3] = [0.06, 0.03, 0.91]
    probabilities[25] = [0.92, 0.03, 0.05]
    assert rank_label_issues(labels, probabilities) == [25, 3]
    assert rank_label_issues(np.zeros(4, np.int64), np.ones((4, 1))) == []
