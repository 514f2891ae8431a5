"""The picture report: one self-contained page with the learning curve and the harvested photos."""

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cloud.registry.model_card import Card
from demo import charts
from demo.curve import DRAWS, Point
from demo.tally import Line, Outcome, Tally, accuracy, labels, percentile

_SHOWN = 24
_STYLE = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")


class Sheet(NamedTuple):
    """A group of harvested photos."""

    title: str
    text: str
    lines: Sequence[Line]


def sheets(outcome: Outcome) -> list[Sheet]:
    """Choose the harvested photos to show: those that the person saw, and the ends of both lanes."""
    ordered = sorted(outcome.replay.harvested(), key=lambda line: line.confidence or 0.0)
    asked = [line for line in ordered if line.photo_id in outcome.reviewed]
    others = [line for line in ordered if line.photo_id not in outcome.reviewed]
    auto = [line for line in reversed(others) if line.harvest == "auto"]
    hard = [line for line in others if line.harvest == "hard"]
    return [
        Sheet("Labelled by the person", "Of the least certain ones; here the model learns most.", asked),
        Sheet(
            "Lane auto",
            "Version 1 was sure of these. Its label counts where a model of people's labels says the same.",
            auto[:_SHOWN],
        ),
        Sheet("Lane hard", "Version 1 was not sure of these; they wait for a person.", hard[:_SHOWN]),
    ]


def write(out: Path, outcome: Outcome, curve: Sequence[Point], images: Mapping[str, bytes]) -> Path:
    """Write `report.html` and return its path.

    Args:
        out: Folder for it.
        outcome: What the run measured.
        curve: Accuracies with fewer labels; may be empty.
        images: Of the photos that `sheets` names, by id.
    """
    cards = (outcome.first, outcome.second)
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>Gleaner: one round of the loop</title><style>{_STYLE}</style>",
        "<h1>One round of the loop</h1>",
        f"<table class='rows'>{''.join(_row(what, answer) for what, answer in outcome.rows())}</table>",
        "<h2>Learning curve</h2>",
        _curve(outcome, curve),
        "<h2>Confusion on gold</h2><div class='side'>" + "".join(map(_confusion, cards)) + "</div>",
        "<h2>From the camera to the answer</h2><div class='side'>",
        _latency("At a camera's pace, while the model was swapped", outcome.watch),
        _latency("In the replay, where photos queue", outcome.replay),
        "</div><h2>Harvested photos</h2>",
        "<p>What version 1 said and how sure it was; the truth of <span class='wrong'>wrong ones</span>.</p>",
        *(_sheet(sheet, images) for sheet in sheets(outcome) if sheet.lines),
    ]
    out.mkdir(parents=True, exist_ok=True)
    path = out / "report.html"
    path.write_text("\n".join(parts) + "\n</html>\n", encoding="utf-8")
    return path


def _row(what: str, answer: str) -> str:
    kind = " class='part'" if what.startswith(" ") else ""
    return f"<tr{kind}><th>{html.escape(what.strip())}</th><td>{html.escape(answer)}</td></tr>"


def _curve(outcome: Outcome, curve: Sequence[Point]) -> str:
    """Draw both versions with their intervals, and what fewer labels would have given."""
    first, second = outcome.first, outcome.second
    curve = curve or _ends(first, second)
    series = [
        charts.Series("human", "human", [_spread(point.labels, point.human) for point in curve]),
        charts.Series(
            "harvested", "harvested", [_spread(p.labels, p.harvested) for p in curve if p.harvested]
        ),
    ]
    marks = [
        charts.Mark(f"version {card.version}", labels(card), m.accuracy_low, m.accuracy, m.accuracy_high)
        for card in (first, second)
        if (m := card.metrics) is not None
    ]
    return (
        f"<figure class='wide'>{charts.learning_curve(series, marks)}"
        "<figcaption><span class='human'>people's labels alone</span> · <span class='harvested'>with the "
        "harvested photos that they confirm</span><br>Between the ends: mean of "
        f"{DRAWS} random choices of the labels that came first, the band from the worst to the best. "
        "The bars of both versions are 95 % intervals: so exactly can so many gold photos tell."
        "</figcaption></figure>"
    )


def _ends(first: Card, second: Card) -> list[Point]:
    """Return what the cards alone know: version 1, and the candidates of version 2."""
    human, *others = [candidate.gold_accuracy or 0.0 for candidate in second.candidates]
    people = sum(sources.get("human", 0) for sources in second.examples.values())
    return [Point(labels(first), [accuracy(first)], []), Point(people, [human], others)]


def _spread(number: int, accuracies: Sequence[float]) -> tuple[float, float, float, float]:
    return number, min(accuracies), sum(accuracies) / len(accuracies), max(accuracies)


def _confusion(card: Card) -> str:
    """Show what was answered for each class, darker where it was answered more often."""
    if card.metrics is None:
        return ""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in card.classes)
    rows = ""
    for truth, (name, counts) in enumerate(zip(card.classes, card.metrics.confusion, strict=True)):
        cells = ""
        for answer, count in enumerate(counts):
            share = count / max(1, sum(counts))
            kind = "right" if truth == answer else "wrong"
            cells += f"<td class='{kind}' style='--share:{share:.2f}'>{count}<small>{share:.0%}</small></td>"
        rows += f"<tr><th>{html.escape(name)}</th>{cells}</tr>"
    return (
        f"<table class='confusion'><caption>Version {card.version}: {accuracy(card):.1%}</caption>"
        f"<tr><th>is ↓ answered →</th>{head}</tr>{rows}</table>"
    )


def _latency(title: str, tally: Tally) -> str:
    ordered = tally.latencies_ms()
    if not ordered:
        return f"<figure><figcaption>{title}: no answers</figcaption></figure>"
    marked = [(f"p{share}", percentile(ordered, share / 100)) for share in (50, 99)]
    rate = f"{len(ordered)} photos, {tally.per_s:.0f} a second"
    return (
        f"<figure>{charts.histogram(ordered, marked, 'ms')}<figcaption>{title}: {rate}</figcaption></figure>"
    )


def _sheet(sheet: Sheet, images: Mapping[str, bytes]) -> str:
    figures = "".join(_figure(line, images.get(line.photo_id, b"")) for line in sheet.lines)
    return f"<h3>{sheet.title}</h3><p>{sheet.text}</p><div class='sheet'>{figures}</div>"


def _figure(line: Line, image: bytes) -> str:
    kind = "image/png" if image.startswith(b"\x89PNG") else "image/jpeg"
    said = html.escape(f"{line.label} {line.confidence or 0:.0%}", quote=True)
    wrong = line.label != line.truth
    truth = f" <b>is {html.escape(str(line.truth))}</b>" if wrong else ""
    return (
        f"<figure{' class=wrong' if wrong else ''}>"
        f"<img alt='{said}' src='data:{kind};base64,{base64.b64encode(image).decode()}'>"
        f"<figcaption>{said}{truth}</figcaption></figure>"
    )
