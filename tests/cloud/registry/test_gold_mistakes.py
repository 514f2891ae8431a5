"""Rules of cloud/registry/gold_mistakes.py: which answers to gold photos a version shows as wrong."""

import numpy as np
import pytest

from cloud.registry.gold_mistakes import MAX_SUREST, GoldMistake, find_mistakes, read_gold_mistakes
from schemas.errors import PermanentError


def test_the_surest_mistakes_come_first_and_are_bounded() -> None:
    """All are counted; right answers are none."""
    probabilities = np.array([[0.9, 0.1], [0.3, 0.7], [0.2, 0.8], [0.4, 0.6]])
    found = find_mistakes(probabilities, np.array([0, 0, 0, 1]), ["a", "b", "c", "d"], ["cat", "dog"])
    assert (found.photos, found.wrong) == (4, 2)
    assert found.surest == [GoldMistake("c", "dog", "cat", 0.8), GoldMistake("b", "dog", "cat", 0.7)]
    many = find_mistakes(
        np.tile([0.9, 0.1], (100, 1)), np.ones(100, int), [str(at) for at in range(100)], ["cat", "dog"]
    )
    assert (many.wrong, len(many.surest)) == (100, MAX_SUREST)


def test_a_version_of_an_earlier_release_has_no_file(tmp_path) -> None:
    """A file of another format is an error that names it."""
    assert read_gold_mistakes(tmp_path / "gold-mistakes.json") is None
    (tmp_path / "bad").write_text("[]")
    with pytest.raises(PermanentError, match=r"cannot read .*/bad"):
        read_gold_mistakes(tmp_path / "bad")
