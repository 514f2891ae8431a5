import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.charts import Mark, Series, histogram, learning_curve


@given(values=st.lists(st.floats(0.01, 1e5), min_size=1, max_size=200))
def test_a_histogram_stays_inside_the_picture(values: list[float]):
    """For any values, bars and marks are inside the picture."""
    ordered = sorted(values)
    drawn = histogram(ordered, [("p50", ordered[len(ordered) // 2]), ("p99", ordered[-1])], "ms")
    numbers = [float(number) for number in re.findall(r"(?: x| y|width|height)='(-?[\d.]+)'", drawn)]
    assert all(0 <= number <= 640 for number in numbers)
    assert "p99" in drawn


@given(
    accuracies=st.lists(st.floats(0, 1), min_size=2, max_size=5),
    labels=st.lists(st.integers(1, 1000), min_size=2, max_size=5, unique=True),
)
def test_a_curve_stays_inside_the_picture(accuracies: list[float], labels: list[int]):
    """For any accuracies and numbers of labels all marks are inside, the best one on top."""
    points = [(x, y, y, y) for x, y in zip(sorted(labels), accuracies, strict=False)]
    marks = [Mark("version", x, y, y, y) for x, y, _, _ in points]
    drawn = learning_curve([Series("human", "human", points)], marks)
    places = [(float(x), float(y)) for x, y in re.findall(r"class='mark' cx='([\d.]+)' cy='([\d.]+)'", drawn)]
    assert len(places) == len(points)
    assert all(0 <= x <= 640 and 0 <= y <= 300 for x, y in places)
    best = max(range(len(points)), key=lambda at: points[at][2])
    assert places[best][1] == min(y for _, y in places)


@pytest.mark.parametrize(
    ("end", "ticks"), [(158.0, [0, 25, 50, 75, 100, 125, 150]), (2130.0, [0, 500, 1000, 1500, 2000])]
)
def test_ticks_are_round(end: float, ticks: list[float]):
    """The axis has round numbers."""
    drawn = re.findall(r">([\d.]+)</text>", histogram([1.0, end], [], "ms"))
    assert [float(tick) for tick in drawn] == ticks
