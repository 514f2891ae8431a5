"""Show reports as a document with plots: `python -m bench.render`, bench-out/*.json to docs/benchmarks.md."""

import argparse
import math
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import report
from bench.figures import Figure, Goal, Judged, Spread, judge, spread
from bench.measurements import MEASUREMENTS
from bench.plots import plot
from bench.report import Report

_HEAD = """# Benchmarks

Made by `make bench`; do not edit. Every figure is the median of its repeats, with the least and the most of
them in brackets. What it is held against was measured in the same run, in turns with it, and the ratio is
that of each repeat: an absolute figure says something about one machine, a ratio about the software. Why a
goal is missed, and what could be tried next, stands in
[experiments.md](experiments.md#which-goals-of-the-benchmarks-are-missed).
"""
_QUICK = """
**These figures were made by a quick run, which only shows that everything works. They mean nothing.**
"""
_BUSY = 0.5
_DIGITS = 3


def document(reports: Sequence[Report], pictures: str) -> str:
    """Return the document in Markdown.

    Args:
        reports: In the order of their sections.
        pictures: Folder of the plots, relative to the document.
    """
    parts = [_HEAD]
    if any(made.quick for made in reports):
        parts.append(_QUICK)
    parts += ["\n## Goals\n\n", *_goals(reports)]
    for made in reports:
        parts += _section(made, pictures)
    return "".join(parts)


def _goals(reports: Sequence[Report]) -> Iterator[str]:
    yield "| in | goal | wanted | measured | met |\n|---|---|---|---|---|\n"
    for made in reports:
        for judged in judge(made.figures):
            if judged.figure.goal is not None:
                yield f"| {made.title} {_goal_row(judged, judged.figure.goal)}"


def _goal_row(judged: Judged, goal: Goal) -> str:
    figure = judged.figure
    measured = {"median": judged.value, "ratio": judged.ratio, "difference": judged.difference}[goal.of]
    unit = "" if goal.of == "ratio" else f" {figure.unit}"
    beside = {"median": "", "ratio": ", ratio to ", "difference": ", more than "}[goal.of]
    held = f"{beside}{figure.against}" if beside else ""
    wanted = f"at least {goal.least:g}" if goal.least is not None else f"at most {goal.most:g}"
    told = "not measured" if measured is None else f"{_brackets(measured)}{unit}"
    met = "yes" if judged.met else "**no**"
    return f"| {figure.of}: {figure.name}{held} | {wanted}{unit} | {told} | {met} |\n"


def _section(made: Report, pictures: str) -> Iterator[str]:
    yield f"\n## {made.title}\n\n"
    if made.failed is not None:
        yield f"It failed: {made.failed}\n"
        return
    for title in charts(made.figures):
        yield f"![{title}]({pictures}/{file_name(made, title)})\n\n"
    yield from (f"{note}\n\n" for note in made.notes)
    yield from _table(made.figures)
    facts = made.machine
    yield (
        f"\nCommit `{made.commit[:12]}{'+' if made.commit.endswith('+') else ''}`, {made.began_at[:10]}, "
        f"{facts.cores} cores ({facts.processor}), {facts.memory_gb:g} GB, {facts.system}, "
        f"Python {facts.python}, "
        + ", ".join(f"{name} {number}" for name, number in facts.libraries.items())
        + f"; {made.took_s:.0f} s.\n"
    )
    if facts.load > _BUSY * facts.cores:
        yield (
            f"\nWhen it began, the load average was {facts.load:g} on {facts.cores} cores; of measurements "
            "in a row, the one before is in it.\n"
        )


def _table(figures: Sequence[Figure]) -> Iterator[str]:
    yield "| what | of | measured | against | ratio |\n|---|---|---|---|---|\n"
    for judged in judge(figures):
        figure = judged.figure
        ratio = "" if judged.ratio is None else _brackets(judged.ratio)
        against = figure.against if judged.ratio is not None else ""
        measured = f"{_brackets(judged.value)} {figure.unit}"
        yield f"| {figure.name} | {figure.of} | {measured} | {against} | {ratio} |\n"


def charts(figures: Sequence[Figure]) -> dict[str, list[Figure]]:
    """Return the figures of each plot by its title."""
    drawn: dict[str, list[Figure]] = {}
    for figure in figures:
        if figure.chart is not None and figure.x is not None:
            drawn.setdefault(figure.chart, []).append(figure)
    return drawn


def file_name(made: Report, title: str) -> str:
    """Return the name of a plot's file."""
    return f"{made.measurement}-{re.sub('[^a-z0-9]+', '-', title.lower()).strip('-')}.svg"


def _brackets(values: Spread) -> str:
    if values.low == values.high:
        return _short(values.median)
    return f"{_short(values.median)} ({_short(values.low)} to {_short(values.high)})"


def _short(number: float) -> str:
    """Return a number with three digits that count, and all those before the point."""
    if not math.isfinite(number) or number == 0:
        return f"{number:g}"
    places = max(0, _DIGITS - 1 - math.floor(math.log10(abs(number))))
    text = f"{number:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def render(source: Path, target: Path) -> list[Path]:
    """Read the reports of a folder and write the document and its plots.

    Returns:
        What was written.

    Raises:
        FileNotFoundError: No report is there.
    """
    paths = [source / f"{name}.json" for name in MEASUREMENTS]
    reports = [report.read(path) for path in paths if path.exists()]
    if not reports:
        raise FileNotFoundError(f"{source}: expected reports of `python -m bench`, got none")
    pictures = target.parent / target.stem
    pictures.mkdir(parents=True, exist_ok=True)
    written = [target]
    for made in reports:
        for title, figures in charts(made.figures).items():
            written.append(pictures / file_name(made, title))
            plot(title, [(figure, spread(figure.values)) for figure in figures], written[-1])
    for picture in sorted(source.glob("*.svg")):
        written.append(pictures / picture.name)
        shutil.copyfile(picture, written[-1])
    target.write_text(document(reports, target.stem), encoding="utf-8")
    return written


def main() -> None:
    """Render."""
    parser = argparse.ArgumentParser(prog="python -m bench.render", description=__doc__)
    parser.add_argument("--from", type=Path, default=Path("bench-out"), dest="source", help="(bench-out)")
    parser.add_argument("--to", type=Path, default=Path("docs/benchmarks.md"), help="(docs/benchmarks.md)")
    arguments = parser.parse_args()
    for path in render(arguments.source, arguments.to):
        print(path)


if __name__ == "__main__":
    main()
