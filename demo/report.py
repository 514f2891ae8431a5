"""The report: one self-contained HTML page with the learning curve and the harvested photos."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cloud.registry.model_card import Card
from cloud.reporting.page import confusion_table, page, photo_figure, rows_table
from demo import charts
from demo.curve import DRAWS, Point
from demo.tally import Line, Outcome, Tally, accuracy, labels, percentile
from schemas.lanes import AUTO, HARD

_PHOTOS_PER_GROUP = 24


class PhotoGroup(NamedTuple):
    """Harvested photos that are shown together."""

    title: str
    text: str
    lines: Sequence[Line]


def photo_groups(outcome: Outcome) -> list[PhotoGroup]:
    """Select the photos to show: the reviewed ones, the most certain of auto, the least certain of hard."""
    ordered = sorted(outcome.replay.harvested(), key=lambda line: line.confidence or 0.0)
    reviewed = [line for line in ordered if line.photo_id in outcome.reviewed]
    others = [line for line in ordered if line.photo_id not in outcome.reviewed]
    auto = [line for line in reversed(others) if line.harvest == AUTO]
    hard = [line for line in others if line.harvest == HARD]
    return [
        PhotoGroup(
            "Labelled by the reviewer",
            "The photos that `gleaner cloud review` asked about first.",
            reviewed,
        ),
        PhotoGroup(
            "Lane auto",
            "Version 1 was certain of these. Its labels are used where a model of the human labels agrees.",
            auto[:_PHOTOS_PER_GROUP],
        ),
        PhotoGroup(
            "Lane hard",
            "Version 1 was not certain of these; they wait for a person's label.",
            hard[:_PHOTOS_PER_GROUP],
        ),
    ]


def write(out: Path, outcome: Outcome, curve: Sequence[Point], images: Mapping[str, bytes]) -> Path:
    """Write `report.html` and return its path.

    Args:
        out: Folder of the report.
        outcome: Measurements of the run.
        curve: Accuracies with fewer labels; may be empty.
        images: Encoded photos of `photo_groups` by photo id.
    """
    cards = (outcome.first, outcome.second)
    parts = [
        rows_table(outcome.rows()),
        "<h2>Learning curve</h2>",
        _curve(outcome, curve),
        "<h2>Confusion on gold</h2><div class='side'>" + "".join(map(confusion_table, cards)) + "</div>",
        "<h2>Latency from camera to result</h2><div class='side'>",
        _latency_text("Live cameras, while the model was swapped", outcome.live),
        _latency_text("Replay, where photos queue", outcome.replay),
        "</div><h2>Harvested photos</h2>",
        "<p>Label and confidence of version 1; the true class of <span class='wrong'>wrong ones</span>.</p>",
        *(_group(sheet, images) for sheet in photo_groups(outcome) if sheet.lines),
    ]
    out.mkdir(parents=True, exist_ok=True)
    path = out / "report.html"
    text = page("Gleaner: one round of the loop", "One round of the loop", parts)
    path.write_text(text, encoding="utf-8")
    return path


def _curve(outcome: Outcome, curve: Sequence[Point]) -> str:
    """Draw both versions with their intervals, and the accuracies with fewer labels."""
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
        "<figcaption><span class='human'>human labels only</span> · <span class='harvested'>with the "
        "harvested photos that they confirm</span><br>Between the ends: mean of "
        f"{DRAWS} random subsets of the reviewer's labels; the band is from the worst to the best. "
        "The bars of both versions are 95 % intervals."
        "</figcaption></figure>"
    )


def _ends(first: Card, second: Card) -> list[Point]:
    """Return the ends of the curve from the model cards: version 1, and the candidates of version 2."""
    human, *harvested = [candidate.gold_accuracy or 0.0 for candidate in second.candidates]
    human_labels = sum(sources.get("human", 0) for sources in second.examples.values())
    return [Point(labels(first), [accuracy(first)], []), Point(human_labels, [human], harvested)]


def _spread(number: int, accuracies: Sequence[float]) -> tuple[float, float, float, float]:
    return number, min(accuracies), sum(accuracies) / len(accuracies), max(accuracies)


def _latency_text(title: str, tally: Tally) -> str:
    ordered = tally.latencies_ms()
    if not ordered:
        return f"<figure><figcaption>{title}: no results</figcaption></figure>"
    marked = [(f"p{share}", percentile(ordered, share / 100)) for share in (50, 99)]
    rate = f"{len(ordered)} photos, {tally.rate_per_s:.0f} per second"
    return (
        f"<figure>{charts.histogram(ordered, marked, 'ms')}<figcaption>{title}: {rate}</figcaption></figure>"
    )


def _group(sheet: PhotoGroup, images: Mapping[str, bytes]) -> str:
    # Inline images: the report stays one file that can be sent or moved.
    figures = "".join(_figure(line, images.get(line.photo_id, b"")) for line in sheet.lines)
    return f"<h3>{sheet.title}</h3><p>{sheet.text}</p><div class='sheet'>{figures}</div>"


def _figure(line: Line, image: bytes) -> str:
    caption = f"{line.label} {line.confidence or 0:.0%}"
    return photo_figure(image, caption, None if line.label == line.truth else str(line.truth))
