"""Rules of console/web/charts.py: valid SVG without styles, for any figures and names."""

import re
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from console.web.charts import Bar, Frame, Line, Mark, Point, interval_bars, line_chart

SHARES = st.floats(0, 1)
POINTS = st.builds(
    lambda x, shares: Point(x, *sorted(shares)),
    st.integers(0, 100_000).map(float),
    st.tuples(SHARES, SHARES, SHARES),
)
EVIL = "<script>alert(1)</script>\"'&"


def numbers(svg: str) -> list[float]:
    """Return all coordinates of a drawing."""
    texts = re.findall(r' (?:x|y|x1|x2|y1|y2|cx|cy|points)="([^"]*)"', svg)
    return [float(one) for text in texts for one in re.split("[ ,]", text) if one]


@given(
    st.lists(POINTS, min_size=1, max_size=8), st.lists(POINTS, max_size=3), st.none() | st.floats(0.001, 1)
)
def test_every_line_is_within_its_frame(points, marked, highest):
    """Also one point alone, equal points, and values above what is drawn."""
    frame = Frame("Accuracy", "It grows.", "labels", highest=highest)
    lines = [Line("one", sorted(points))]
    svg = line_chart(frame, lines, [Mark(f"version {at}", point) for at, point in enumerate(marked)])
    ET.fromstring(svg)
    assert all(-20 <= one <= 660 for one in numbers(svg))
    assert "style=" not in svg


def test_names_are_text():
    """Names of classes and devices come from strangers."""
    bars = interval_bars(EVIL, EVIL, [Bar(EVIL, 0.1, 0.5, 0.9, EVIL)])
    chart = line_chart(Frame(EVIL, EVIL, EVIL), [], [Mark(EVIL, Point(1, 0.1, 0.2, 0.3))])
    for svg in (bars, chart):
        assert "<script" not in svg
        assert ET.fromstring(svg).find("title").text == EVIL


def test_a_chart_says_what_is_to_be_seen():
    """A screen reader reads title and description; two charts of a page have different ids."""
    one, two = (interval_bars("Recall", "cat 50 %", [Bar("cat", 0.1, 0.5, 0.9, "50 %")]) for _ in range(2))
    tree = ET.fromstring(one)
    assert (tree.get("role"), tree.find("desc").text) == ("img", "cat 50 %")
    assert tree.get("aria-labelledby") != ET.fromstring(two).get("aria-labelledby")
