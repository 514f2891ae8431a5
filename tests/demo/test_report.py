import re
from pathlib import Path

import pytest

from demo import report
from demo.curve import Point
from tests.demo.conftest import PHOTO, candidate, card, line, outcome, tally
from tests.html_page import Page

CURVE = [
    Point(10, [0.8], [0.82]),
    Point(15, [0.79, 0.84], [0.8, 0.87]),
    Point(30, [0.88], [0.9]),
]


def written(run, folder: Path, curve=CURVE) -> str:
    images = {shown.photo_id: PHOTO for group in report.photo_groups(run) for shown in group.lines}
    return report.write(folder / "out", run, curve, images).read_text(encoding="utf-8")


def test_the_page_is_self_contained(tmp_path: Path):
    """Images and styles are inline; there is no URL and no script, and every tag is closed."""
    text = written(outcome(), tmp_path)
    page = Page(text)
    assert not re.search(r"https?:|//|<script|url\(|@import", re.sub(r"base64,[\w+/=]*", "", text))
    assert all(attrs["src"].startswith("data:image/jpeg;base64,") for tag, attrs in page.tags if tag == "img")


def test_the_page_has_the_summary_table(tmp_path: Path):
    """Every row of the summary table is on the page."""
    run = outcome()
    page = Page(written(run, tmp_path))
    for name, value in run.rows():
        assert name.strip() in page.text
        assert value in page.text


def test_class_names_are_escaped(tmp_path: Path):
    """A class name with angle brackets, quotes and ampersands is shown as text."""
    name = "<script>alert('x')</script> & \"co\""
    replay = tally(*(line(n, label=name, truth="cat") for n in range(20)))
    odd = card(2, 90, [candidate("human", 30, 0.9)], human=30, chosen="human")
    odd.classes[:] = [name, "cat"]
    page = Page(written(outcome(replay=replay, second=odd), tmp_path))
    assert page.count("figure", "wrong") == 20
    assert name in page.text
    assert not [tag for tag, _ in page.tags if tag == "script"]
    assert {attrs["alt"] for tag, attrs in page.tags if tag == "img"} == {f"{name} 90%"}


def test_the_groups_are_the_reviewed_photos_and_both_lanes():
    """Reviewed photos are first; then auto by falling confidence and hard by rising confidence."""
    reviewed, auto, hard = report.photo_groups(outcome())
    assert [shown.photo_id for shown in reviewed.lines] == [f"{n:032x}" for n in range(20)]
    assert [shown.confidence for shown in auto.lines] == [n / 40 for n in (29, 27, 25, 23, 21)]
    assert [shown.confidence for shown in hard.lines] == [n / 40 for n in (20, 22, 24, 26, 28)]


def test_the_curve_has_a_band_and_both_versions(tmp_path: Path):
    """Both series have a band, and each version has a mark."""
    page = Page(written(outcome(), tmp_path))
    assert page.count("polygon", "band") == page.count("polyline", "line") == 2
    assert page.count("circle", "mark") == 2
    assert "version 1: 80.0%" in page.text
    assert "version 2: 90.0%" in page.text


@pytest.mark.parametrize("tried", [1, 2])
def test_without_a_curve_its_ends_come_from_the_cards(tried: int, tmp_path: Path):
    """For a backbone that is trained from scratch the curve has version 1 and the candidates of version 2."""
    page = Page(written(outcome(tried=tried), tmp_path, curve=[]))
    assert page.count("polyline", "human") == 1
    assert page.count("circle", "human") == 2


def test_a_run_without_results_has_a_page(tmp_path: Path):
    """A page is written even if no photo was answered or harvested."""
    page = Page(written(outcome(replay=tally(sent=3), live=tally()), tmp_path))
    assert "no results" in page.text
    assert not [tag for tag, _ in page.tags if tag == "img"]


def test_a_png_has_its_media_type(tmp_path: Path):
    """The media type is read from the first bytes of the image."""
    run = outcome(replay=tally(line(1)))
    page = report.write(tmp_path, run, CURVE, {line(1).photo_id: b"\x89PNG\r\n"}).read_text(encoding="utf-8")
    assert "data:image/png;base64," in page
