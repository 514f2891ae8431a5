"""From a measurement to the document."""

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
        notes=["What one should know."],
    )
    return structs.replace(made, **changes)


def test_json_has_the_comparison_beside_the_values(tmp_path: Path) -> None:
    """A report has median, spread, ratio and verdict in it, and is read back as it was."""
    path = report.write(_report(), tmp_path)
    told = json.decode(path.read_bytes())["figures"][1]
    assert told["value"] == {"median": 14.0, "low": 12.0, "high": 41.0}
    assert told["ratio"]["median"] == pytest.approx(1.2)
    assert told["met"] is True
    assert report.read(path) == _report()


def test_document(tmp_path: Path) -> None:
    """It has each figure with its spread and ratio, the goals with their verdict, notes and facts."""
    report.write(_report(), tmp_path / "out")
    written = render(tmp_path / "out", tmp_path / "docs/benchmarks.md")
    said = written[0].read_text(encoding="utf-8")
    assert "| p50 | ours | 14 (12 to 41) ms | limit | 1.2 (1.02 to 1.27) |" in said
    assert "| A title | ours: p50, more than limit | at most 3 ms | 2 (1 to 3) ms | yes |" in said
    assert "What one should know." in said
    assert "`0123456789ab`" in said
    assert "load average" not in said
    assert "quick" not in said
    (picture,) = written[1:]
    assert f"![{_CHART}](benchmarks/{picture.name})" in said
    assert picture.read_text(encoding="utf-8").startswith("<?xml")


def test_the_same_figures_make_the_same_plot(tmp_path: Path) -> None:
    """A plot changes only where its figures do, so that a diff shows something."""
    report.write(_report(), tmp_path)
    first = render(tmp_path, tmp_path / "one.md")[1].read_bytes()
    assert render(tmp_path, tmp_path / "two.md")[1].read_bytes() == first


def test_what_means_nothing_says_so() -> None:
    """A quick run, a busy machine, a checkout with changes and a failure are said in plain words."""
    busy = structs.replace(machine.facts(), load=99.0)
    said = document([_report(quick=True, machine=busy, commit="0123456789abcdef+")], "benchmarks")
    assert "They mean nothing" in said
    assert "the load average was 99" in said
    assert "`0123456789ab+`" in said
    assert "It failed: because" in document([_report(failed="because", figures=[])], "benchmarks")


def test_no_reports(tmp_path: Path) -> None:
    """Without a report there is an error and no document."""
    with pytest.raises(FileNotFoundError, match="expected reports"):
        render(tmp_path, tmp_path / "benchmarks.md")
    assert not (tmp_path / "benchmarks.md").exists()
