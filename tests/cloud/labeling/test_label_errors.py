"""Rules of cloud/labeling/label_errors.py: wrong labels are found, correct ones are not reported."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from cloud.dataset.example import Example
from cloud.labeling.label_errors import find_label_errors
from cloud.labeling.label_judgement import rank_label_issues
from cloud.progress import NoProgress
from tests.cloud import tiny

# Importing TensorFlow 2.21 with a current NumPy and protobuf warns about their own deprecated names.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(tensorflow|keras|numpy|google).*")


def test_swapped_labels_are_found_and_few_others(make_example: Any, tmp_path: Path) -> None:
    """Of 5 swapped labels among 50, at least 4 on average are found and corrected, and at most 2 others.

    The average is of four draws: which labels are swapped matters more than anything that is tested here.
    """
    correct = [make_example(label, seed) for label in ("dawn", "dusk") for seed in range(25)]
    other = {"dawn": "dusk", "dusk": "dawn"}
    hit_count, draws = 0, (3, 4, 5, 6)
    for draw in draws:
        chosen = set(np.random.default_rng(draw).permutation(50)[:5])
        photos = [
            Example(one.photo_id, one.image, other[one.label], "teacher") if place in chosen else one
            for place, one in enumerate(correct)
        ]
        found = find_label_errors(photos, tiny.NAME, tmp_path, seed=0, progress=NoProgress())
        swapped = {correct[place].photo_id: correct[place].label for place in chosen}
        hits = {error.photo_id: error.suggestion for error in found if error.photo_id in swapped}
        hit_count += len(hits)
        assert hits.items() <= swapped.items()
        assert len(found) - len(hits) <= 2
        assert [error.self_confidence for error in found] == sorted(error.self_confidence for error in found)
        assert {error.source for error in found if error.photo_id in swapped} == {"teacher"}
        fields = {"photo_id", "label", "source", "likely", "credibility"}
        assert set(msgspec.json.decode(msgspec.json.encode(found[0]))) == fields
    assert hit_count >= 4 * len(draws)


def test_one_class_or_one_photo_of_each_finds_nothing(make_example: Any, tmp_path: Path) -> None:
    """Without a second class, or a second photo of a class to train on, no label can be checked."""
    one = make_example("dawn", 1)
    assert find_label_errors([one], tiny.NAME, tmp_path, seed=0, progress=NoProgress()) == []
    assert (
        find_label_errors([one, make_example("dusk", 1)], tiny.NAME, tmp_path, seed=0, progress=NoProgress())
        == []
    )


def test_contradicting_rows_are_ranked() -> None:
    """The lowest self-confidence comes first; a class without labels has no effect."""
    labels = np.array([0] * 20 + [2] * 20)
    probabilities = np.full((40, 3), 0.05)
    probabilities[np.arange(40), labels] = 0.9
    assert rank_label_issues(labels, probabilities) == []
    probabilities[3] = [0.06, 0.03, 0.91]
    probabilities[25] = [0.92, 0.03, 0.05]
    assert rank_label_issues(labels, probabilities) == [25, 3]
    assert rank_label_issues(np.zeros(4, np.int64), np.ones((4, 1))) == []
