import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from demo import report
from demo.curve import Point
from tests.demo.conftest import PHOTO, candidate, card, line, outcome, tally

CURVE = [
    Point(10, [0.8], [0.82]),
    Point(15, [0.79, 0.84], [0.8, 0.87]),
    Point(30, [0.88], [0.9]),
]
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Reads a page as a browser would, and holds that its tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def count(self, tag: str, kind: str) -> int:
        """Count tags of a class."""
        return sum(seen == tag and kind in (attrs.get("class") or "").split() for seen, attrs in self.seen)


def written(run, folder: Path, curve=CURVE) -> str:
    images = {shown.photo_id: PHOTO for sheet in report.sheets(run) for shown in sheet.lines}
    return report.write(folder / "out", run, curve, images).read_text(encoding="utf-8")


def test_the_page_needs_nothing_but_itself(tmp_path: Path):
    """Pictures and style are inside: no address, no script, and every tag is closed."""
    text = written(outcome(), tmp_path)
    page = Page(text)
    assert not re.search(r"https?:|//|<script|url\(|@import", re.sub(r"base64,[\w+/=]*", "", text))
    assert all(attrs["src"].startswith("data:image/jpeg;base64,") for tag, attrs in page.seen if tag == "img")


def test_the_page_has_all_that_the_table_has(tmp_path: Path):
    """Every row of the closing table is on the page."""
    run = outcome()
    page = Page(written(run, tmp_path))
    for what, answer in run.rows():
        assert what.strip() in page.text
        assert answer in page.text


def test_names_are_shown_and_not_obeyed(tmp_path: Path):
    """A class is a folder's name; with angle brackets, quotes and ampersands it is text all the same."""
    name = "<script>alert('x')</script> & \"co\""
    replay = tally(*(line(n, label=name, truth="cat") for n in range(20)))
    odd = card(2, 90, [candidate("human", 30, 0.9)], human=30, chosen="human")
    odd.classes[:] = [name, "cat"]
    page = Page(written(outcome(replay=replay, second=odd), tmp_path))
    assert page.count("figure", "wrong") == 20
    assert name in page.text
    assert not [tag for tag, _ in page.seen if tag == "script"]
    assert {attrs["alt"] for tag, attrs in page.seen if tag == "img"} == {f"{name} 90%"}


def test_the_sheets_show_the_reviewed_photos_and_both_lanes():
    """What the person saw stands first; of the rest, auto from the surest and hard from the least sure."""
    asked, auto, hard = report.sheets(outcome())
    assert [shown.photo_id for shown in asked.lines] == [f"{n:032x}" for n in range(20)]
    assert [shown.confidence for shown in auto.lines] == [n / 40 for n in (29, 27, 25, 23, 21)]
    assert [shown.confidence for shown in hard.lines] == [n / 40 for n in (20, 22, 24, 26, 28)]


def test_the_curve_has_a_band_and_both_versions(tmp_path: Path):
    """Both ways to learn are drawn with their spread, and each version with its interval."""
    page = Page(written(outcome(), tmp_path))
    assert page.count("polygon", "band") == page.count("polyline", "line") == 2
    assert page.count("circle", "mark") == 2
    assert "version 1: 80.0%" in page.text
    assert "version 2: 90.0%" in page.text


@pytest.mark.parametrize("tried", [1, 2])
def test_without_a_curve_the_cards_give_its_ends(tried: int, tmp_path: Path):
    """A backbone that takes minutes to train has version 1 and the candidates of version 2 alone."""
    page = Page(written(outcome(tried=tried), tmp_path, curve=[]))
    assert page.count("polyline", "human") == 1
    assert page.count("circle", "human") == 2


def test_a_run_without_harvest_and_answers_has_a_page(tmp_path: Path):
    """Nothing harvested, no photo answered and no gold set still give a page."""
    page = Page(written(outcome(replay=tally(sent=3), watch=tally()), tmp_path))
    assert "no answers" in page.text
    assert not [tag for tag, _ in page.seen if tag == "img"]


def test_a_png_is_called_one(tmp_path: Path):
    """The kind of a picture is read from its first bytes."""
    run = outcome(replay=tally(line(1)))
    page = report.write(tmp_path, run, CURVE, {line(1).photo_id: b"\x89PNG\r\n"}).read_text(encoding="utf-8")
    assert "data:image/png;base64," in page
