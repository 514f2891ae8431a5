"""The picture report: one self-contained page with the curves and the harvested photos."""

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from cloud.card import Card
from demo.tally import Line, Tally, percentile

_SHOWN = 48
_BINS = 30
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #2a9d5c; --bad: #d1495b; --mark: #3b7dd8; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; } td, th { padding: .25rem .75rem; border-bottom: 1px solid var(--line);
text-align: left; } h2 { margin-top: 2.5rem; }
svg { max-width: 100%; height: auto; }
svg text { fill: currentColor; font: 12px system-ui, sans-serif; }
.sheet { display: grid; gap: .75rem; grid-template-columns:
repeat(auto-fill, minmax(8rem, 1fr)); }
figure { margin: 0; } figure img { width: 100%; aspect-ratio: 4/3;
object-fit: cover; border-radius: .4rem; border: 3px solid var(--good); }
figure.wrong img { border-color: var(--bad); }
figure.asked figcaption::after { content: " · labelled by the reviewer"; color: var(--mark); }
figcaption { font-size: .8rem; } .side { display: flex; flex-wrap: wrap; gap: 2rem; }
"""


def chosen(stream: Tally, most: int = _SHOWN) -> list[Line]:
    """Return the harvested photos to show: the least certain half, and the most certain."""
    ordered = sorted(stream.harvested(), key=lambda line: line.confidence or 0.0)
    if len(ordered) <= most:
        return ordered
    return ordered[: most // 2] + ordered[-(most // 2) :]


def write(
    out: Path,
    table: Sequence[tuple[str, str]],
    cards: Sequence[Card],
    stream: Tally,
    *,
    images: dict[str, bytes],
    reviewed: set[str],
) -> Path:
    """Write `report.html` and return its path.

    Args:
        out: Folder for it.
        table: The closing table.
        cards: Of both versions.
        stream: Answers of the stream.
        images: Of the photos that `chosen` names, by id.
        reviewed: Ids that the reviewer labelled.
    """
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>Gleaner: one round</title><style>{_STYLE}</style><h1>Gleaner: one round of the loop</h1>",
        "<table>" + "".join(_row(what.strip(), answer) for what, answer in table) + "</table>",
        "<h2>Accuracy on the gold set</h2>" + _accuracy(cards),
        "<h2>Confusion</h2><div class='side'>" + "".join(map(_confusion, cards)) + "</div>",
        "<h2>From the camera to the answer</h2>" + _histogram(stream.latencies_ms()),
        "<h2>Harvested photos</h2><p>The least certain and the most certain. Green: the model was right.</p>",
        "<div class='sheet'>"
        + "".join(_figure(line, images, reviewed) for line in chosen(stream))
        + "</div>",
    ]
    out.mkdir(parents=True, exist_ok=True)
    path = out / "report.html"
    path.write_text("\n".join(parts) + "\n</html>\n", encoding="utf-8")
    return path


def _row(*cells: str) -> str:
    return "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"


def _accuracy(cards: Sequence[Card]) -> str:
    """Draw each version's accuracy with its 95 % interval, the candidates of the last one beside it."""
    bars: list[tuple[str, float, float, float]] = []
    for card in cards:
        if card.metrics is not None:
            metrics = card.metrics
            bars.append(
                (f"version {card.version}", metrics.accuracy, metrics.accuracy_low, metrics.accuracy_high)
            )
    for candidate in cards[-1].candidates:
        gold = candidate.gold_accuracy or 0.0
        bars.append((f"{candidate.name}, {candidate.photos} photos", gold, gold, gold))
    low = max(0.0, min((bar[2] for bar in bars), default=0.0) - 0.05)
    width, height = 640, 34 * len(bars) + 30

    def at(value: float) -> float:
        return 200 + (value - low) / (1 - low) * (width - 260)

    marks = []
    for number, (name, value, least, most) in enumerate(bars):
        y = 24 + 34 * number
        marks.append(f"<text x='0' y='{y + 4}'>{html.escape(name)}</text>")
        marks.append(
            f"<line x1='{at(least):.1f}' x2='{at(most):.1f}' y1='{y}' y2='{y}' stroke='currentColor'/>"
        )
        marks.append(f"<circle cx='{at(value):.1f}' cy='{y}' r='6' fill='var(--mark)'/>")
        marks.append(f"<text x='{at(most) + 10:.1f}' y='{y + 4}'>{value:.1%}</text>")
    return _svg(width, height, marks)


def _confusion(card: Card) -> str:
    if card.metrics is None:
        return ""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in card.classes)
    body = "".join(
        _row(name, *map(str, counts))
        for name, counts in zip(card.classes, card.metrics.confusion, strict=True)
    )
    return f"<table><tr><th>version {card.version}: truth, answers</th>{head}</tr>{body}</table>"


def _histogram(ordered: Sequence[float]) -> str:
    """Draw how many answers took how long, up to the 99.5th percentile."""
    if not ordered:
        return "<p>No answers.</p>"
    end = max(1.0, percentile(ordered, 0.995))
    counts = [0] * _BINS
    for value in ordered:
        counts[min(_BINS - 1, int(value / end * _BINS))] += 1
    width, height, tallest = 640, 200, max(counts)
    marks = []
    for number, count in enumerate(counts):
        bar = count / tallest * (height - 40)
        x = number * width / _BINS
        marks.append(
            f"<rect x='{x:.1f}' y='{height - 24 - bar:.1f}' width='{width / _BINS - 2:.1f}' "
            f"height='{bar:.1f}' fill='var(--mark)'/>"
        )
    for share in (0.0, 0.5, 1.0):
        anchor = {0.0: "start", 0.5: "middle", 1.0: "end"}[share]
        text = f"{share * end:.0f} ms"
        marks.append(f"<text x='{share * width:.0f}' y='{height - 6}' text-anchor='{anchor}'>{text}</text>")
    return _svg(width, height, marks)


def _figure(line: Line, images: dict[str, bytes], reviewed: set[str]) -> str:
    image = base64.b64encode(images.get(line.photo_id, b"")).decode()
    classes = ("" if line.label == line.truth else "wrong ") + ("asked" if line.photo_id in reviewed else "")
    said = f"{line.label} {line.confidence or 0:.0%}, {line.harvest}"
    truth = "" if line.label == line.truth else f" (is {line.truth})"
    caption = html.escape(said + truth)
    return (
        f"<figure class='{classes.strip()}'><img alt='{caption}' src='data:image/jpeg;base64,{image}'>"
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _svg(width: int, height: int, marks: Iterable[str]) -> str:
    return f"<svg viewBox='0 0 {width} {height}' width='{width}' role='img'>{''.join(marks)}</svg>"
