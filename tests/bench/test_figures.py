"""The arithmetic behind every figure."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.figures import Figure, Goal, judge, percentile, percentiles, spread


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.1, 100))
def test_percentile(values: list[float], per_cent: float) -> None:
    """It is the smallest value that at least that percentage of the values do not exceed."""
    found = percentile(values, per_cent)
    assert found in values
    assert sum(value <= found for value in values) >= per_cent / 100 * len(values) - 1e-9
    assert sum(value < found for value in values) < per_cent / 100 * len(values)


def test_percentiles_are_milliseconds() -> None:
    """For 1 to 100 ms, p50 is 50 ms, p95 95 ms and p99 99 ms; without values they are NaN."""
    assert percentiles([number / 1000 for number in range(100, 0, -1)]) == pytest.approx((50, 95, 99))
    assert math.isnan(percentiles([]).p99)


def test_spread() -> None:
    """It is median, minimum and maximum."""
    assert spread([9.0, 1.0, 2.0]) == (2.0, 1.0, 9.0)


def test_each_repeat_has_its_own_ratio() -> None:
    """A repeat that was slow for both contestants does not change the ratio."""
    reference = Figure(name="photos/s", of="limit", unit="photos/s", values=[100.0, 10.0, 90.0])
    ours = Figure(name="photos/s", of="ours", unit="photos/s", values=[98.0, 9.7, 88.2], against="limit")
    alone, judged = judge([reference, ours])
    assert alone.ratio is None
    assert judged.ratio == pytest.approx((0.98, 0.97, 0.98))
    assert judged.difference == pytest.approx((-1.8, -2.0, -0.3))


@pytest.mark.parametrize(
    ("goal", "met"),
    [
        (Goal(of="ratio", least=2.0), True),
        (Goal(of="ratio", least=2.1), False),
        (Goal(of="difference", most=3.0), True),
        (Goal(of="difference", most=2.9), False),
        (Goal(most=6.0), True),
        (Goal(least=6.1), False),
    ],
)
def test_goal(goal: Goal, met: object) -> None:
    """A goal applies to the value, the ratio or the difference, and its bound is inclusive."""
    reference = Figure(name="p50", of="limit", unit="ms", values=[3.0])
    ours = Figure(name="p50", of="ours", unit="ms", values=[6.0], against="limit", goal=goal)
    assert [judged.met for judged in judge([reference, ours])] == [None, met]


def test_a_goal_without_its_reference_is_not_met() -> None:
    """Without a reference, or with a reference of zero, a goal for the ratio is not met."""
    goal = Goal(of="ratio", least=0.97)
    ours = Figure(name="p50", of="ours", unit="ms", values=[6.0], against="limit", goal=goal)
    zero = Figure(name="p50", of="limit", unit="ms", values=[0.0])
    assert judge([ours])[0].met is False
    assert judge([ours, zero])[0].met is False
