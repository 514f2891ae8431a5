"""Rules of cloud/retraining/two_sample.py: a drift is found, and chance is not taken for one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.evaluation.metrics import significant
from cloud.modeling.arrays import Floats
from cloud.retraining.two_sample import mmd_test


def photos(seed: int, count: int, shift: float = 0.0) -> Floats:
    """Draw embeddings of two classes, `[count, 16]`."""
    draw = np.random.default_rng(seed)
    return draw.normal(size=(count, 16)) + 2.0 * draw.integers(0, 2, (count, 1)) + shift


def test_chance_alone_is_rarely_a_drift() -> None:
    """Of 200 pairs of one distribution at most 2 % are below the level 0.01."""
    p_values = [mmd_test(photos(n, 50), photos(1000 + n, 30), seed=n).p_value for n in range(200)]
    assert sum(p_value <= 0.01 for p_value in p_values) <= 4


def test_a_shift_is_found_in_50_photos() -> None:
    """All of 10 shifted sets are below the level, also where only the spread changed."""
    moved = [mmd_test(photos(n, 200), photos(1000 + n, 50, 1.5), seed=n).p_value for n in range(10)]
    spread = [mmd_test(photos(n, 200), 2 * photos(1000 + n, 50), seed=n).p_value for n in range(10)]
    assert max(moved + spread) <= 0.005


def test_equal_photos_are_no_drift() -> None:
    """Sets of one single photo are equal: the statistic is 0 and the p-value 1."""
    test = mmd_test(np.ones((20, 4)), np.ones((10, 4)), seed=0)
    assert (test.statistic, test.p_value) == (0.0, 1.0)


def test_a_test_is_repeatable() -> None:
    """Equal photos and seed give an equal p-value: looking again is no new chance of an alarm."""
    assert mmd_test(photos(1, 60), photos(2, 30), seed=3) == mmd_test(photos(1, 60), photos(2, 30), seed=3)


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=8), st.floats(0.001, 0.1))
def test_more_tests_need_smaller_p_values(p_values: dict[str, float], level: float) -> None:
    """What Bonferroni's correction finds is found, nothing above the level is, and the smallest is first."""
    found = significant(p_values, level)
    certain = {name for name, p_value in p_values.items() if p_value <= level / max(1, len(p_values))}
    assert certain <= set(found)
    assert all(p_values[name] <= level for name in found)
    assert [p_values[name] for name in found] == sorted(p_values[name] for name in found)


def test_holm_stops_at_the_first_that_is_not_significant() -> None:
    """The second smallest of three p-values is compared with half of the level."""
    assert significant({"a": 0.003, "b": 0.004, "c": 0.5}, 0.01) == ["a", "b"]
    assert significant({"a": 0.004, "b": 0.001, "c": 0.5}, 0.01) == ["b", "a"]
    assert significant({"a": 0.004, "b": 0.006}, 0.01) == pytest.approx(["a", "b"])
    assert significant({"a": 0.006, "b": 0.006}, 0.01) == []
