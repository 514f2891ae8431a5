"""Rendering of reports."""

from pathlib import Path

import pytest
from msgspec import json, structs

from bench import machine, report
from bench.figures import Figure, Goal
from bench.render import document, render
from bench.report import Report

_CHART = "p50 by load, % of the limit"


def _report(**changes: object) -> Report:
    limit = Figure(name="p50", of="limit", unit="ms", values=[10.0, 11.0, 40.0], chart=_CHART, x=50.0)
    ours = Figure(
        name="p50",
        of="ours",
        unit="ms",
        values=[12.0, 14.0, 41.0],
        against="limit",
        goal=Goal(of="difference", most=3.0),
        chart=_CHART,
        x=50.0,
    )
    facts = structs.replace(machine.facts(), load=0.1)
    made = Report(
        measurement="null",
        title="A title",
        commit="0123456789abcdef",
        machine=facts,
        quick=False,
        began_at="2026-01-02T03:04:05+00:00",
        took_s=12.0,
        figures=[limit, ours],
        notes=["A note."],
    )
    return structs.replace(made, **changes)


def test_a_report_has_the_comparison(tmp_path: Path) -> None:
    """A written report has median, range, ratio and verdict of each figure, and can be read again."""
    path = report.write(_report(), tmp_path)
    fields = json.decode(path.read_bytes())["figures"][1]
    assert fields["value"] == {"median": 14.0, "low": 12.0, "high": 41.0}
    assert fields["ratio"]["median"] == pytest.approx(1.2)
    assert fields["met"] is True
    assert report.read(path) == _report()


def test_document(tmp_path: Path) -> None:
    """The document has each figure with range and ratio, the goals, the notes and the machine."""
    report.write(_report(), tmp_path / "out")
    written = render(tmp_path / "out", tmp_path / "docs/benchmarks.md")
    text = written[0].read_text(encoding="utf-8")
    assert "| p50 | ours | 14 (12 to 41) ms | limit | 1.2 (1.02 to 1.27) |" in text
    assert "| A title | ours: p50, more than limit | at most 3 ms | 2 (1 to 3) ms | yes |" in text
    assert "A note." in text
    assert "`0123456789ab`" in text
    assert "load average" not in text
    assert "quick" not in text
    (picture,) = written[1:]
    assert f"![{_CHART}](benchmarks/{picture.name})" in text
    assert picture.read_text(encoding="utf-8").startswith("<?xml")


def test_the_same_figures_make_the_same_plot(tmp_path: Path) -> None:
    """Equal figures give byte-equal plots."""
    report.write(_report(), tmp_path)
    first = render(tmp_path, tmp_path / "one.md")[1].read_bytes()
    assert render(tmp_path, tmp_path / "two.md")[1].read_bytes() == first


def test_figures_of_another_machine_stay(tmp_path: Path) -> None:
    """A run on another machine keeps the document and the plots of the first, and links them."""
    here = structs.replace(machine.facts(), processor="Here", instructions=["avx2"])
    there = structs.replace(here, processor="There")
    target = tmp_path / "docs/benchmarks.md"
    for facts in (there, here, here):
        report.write(_report(machine=facts), tmp_path / "out")
        picture = render(tmp_path / "out", target)[1]
    text = target.read_text(encoding="utf-8")
    (kept,) = target.parent.glob("benchmarks-*.md")
    assert f"({kept.name})" in text
    assert "Here avx2" in text
    old = kept.read_text(encoding="utf-8")
    assert "There avx2" in old
    assert f"({kept.stem}/{picture.name})" in old
    assert (target.parent / kept.stem / picture.name).exists()
    assert picture.exists()


def test_doubtful_figures_are_marked() -> None:
    """A quick run, a busy machine, a changed checkout and a failure are stated in the document."""
    busy = structs.replace(machine.facts(), load=99.0)
    text = document([_report(quick=True, machine=busy, commit="0123456789abcdef+")], "benchmarks")
    assert "They mean nothing" in text
    assert "the load average was 99" in text
    assert "`0123456789ab+`" in text
    assert "It failed: because" in document([_report(failed="because", figures=[])], "benchmarks")


def test_no_reports(tmp_path: Path) -> None:
    """Without a report rendering fails and writes nothing."""
    with pytest.raises(FileNotFoundError, match="no reports in"):
        render(tmp_path, tmp_path / "benchmarks.md")
    assert not (tmp_path / "benchmarks.md").exists()
