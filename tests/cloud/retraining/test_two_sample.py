"""Rules of cloud/retraining/two_sample.py: a drift is found, and chance is not taken for one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.evaluation.metrics import significant
from cloud.modeling.arrays import Floats
from cloud.retraining.two_sample import Side, discrepancy, mmd_test


def photos(seed: int, count: int, shift: float = 0.0) -> Floats:
    """Draw embeddings of two classes, `[count, 16]`."""
    draw = np.random.default_rng(seed)
    return draw.normal(size=(count, 16)) + 2.0 * draw.integers(0, 2, (count, 1)) + shift


def side(seed: int, count: int, shift: float = 0.0) -> Side:
    """Draw one side of a comparison, without strata."""
    return Side(photos(seed, count, shift))


def test_chance_alone_is_rarely_a_drift() -> None:
    """Of 200 pairs of one distribution at most 2 % are below the level 0.01."""
    p_values = [mmd_test(side(n, 50), side(1000 + n, 30), seed=n).p_value for n in range(200)]
    assert sum(p_value <= 0.01 for p_value in p_values) <= 4


def test_a_shift_is_found_in_50_photos() -> None:
    """All of 10 shifted sets are below the level, also where only the spread changed."""
    moved = [mmd_test(side(n, 200), side(1000 + n, 50, 1.5), seed=n).p_value for n in range(10)]
    spread = [mmd_test(side(n, 200), Side(2 * photos(1000 + n, 50)), seed=n).p_value for n in range(10)]
    assert max(moved + spread) <= 0.005


def test_equal_photos_are_no_drift() -> None:
    """Sets of one single photo are equal: the statistic is 0 and the p-value 1."""
    test = mmd_test(Side(np.ones((20, 4))), Side(np.ones((10, 4))), seed=0)
    assert (test.statistic, test.p_value) == (0.0, 1.0)


def test_a_test_is_repeatable() -> None:
    """Equal photos and seed give an equal p-value: testing again cannot add false alarms."""
    assert mmd_test(side(1, 60), side(2, 30), seed=3) == mmd_test(side(1, 60), side(2, 30), seed=3)


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


def test_strata_are_compared_with_themselves() -> None:
    """Two devices that differ, of which one sends more than before: chance; if one moved as well: a drift."""
    before, after = ["a"] * 30 + ["b"] * 30, ["a"] * 5 + ["b"] * 25
    earlier = np.concatenate([photos(1, 30), photos(2, 30, 4.0)])
    later = np.concatenate([photos(3, 5), photos(4, 25, 4.0)])
    moved = np.concatenate([photos(3, 5), photos(4, 25, 5.5)])
    assert mmd_test(Side(earlier), Side(later), seed=0).p_value < 0.005
    assert mmd_test(Side(earlier, before), Side(later, after), seed=0).p_value > 0.05
    assert mmd_test(Side(earlier, before), Side(moved, after), seed=0).p_value < 0.001


def test_strata_of_one_side_tell_nothing() -> None:
    """Photos of a device that the reference does not have are left out; nothing else is left here."""
    found = mmd_test(Side(photos(1, 30), ["a"] * 30), Side(photos(2, 30, 4.0), ["b"] * 30), seed=0)
    assert (found.statistic, found.p_value) == (0.0, 1.0)


def test_the_discrepancy_does_not_grow_where_photos_are_few() -> None:
    """Without drift it is about 0 for any number of photos, so that blocks of several sizes compare."""
    found = [
        np.mean([discrepancy(side(n, count), side(1000 + n, 30)) for n in range(60)]) for count in (15, 200)
    ]
    assert np.abs(found).max() < 0.01
    assert discrepancy(side(1, 200), side(2, 30, 1.5)) > 0.1
