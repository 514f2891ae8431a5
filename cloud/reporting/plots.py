"""Plots of a version as SVG; the colours are CSS classes of the page."""

import html
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cloud.evaluation.metrics import Metrics, wilson_interval
from cloud.modeling.arrays import Bools, Floats

_SIDE = 320
_MARGIN = 40
_BINS = 10
_ROW = 26
_NAME_PX = 150


class Bin(NamedTuple):
    """Answers of similar confidence.

    Attributes:
        confidence: their mean confidence.
        accuracy: share of them that is correct.
        low: lower end of its 95 % Wilson interval.
        high: upper end.
        photos: their number.
    """

    confidence: float
    accuracy: float
    low: float
    high: float
    photos: int


def reliability_bins(confidence: Floats, correct: Bools) -> list[Bin]:
    """Group answers into ten equally wide ranges of confidence; empty ones are left out.

    Args:
        confidence: `[N]`, in [0, 1].
        correct: `[N]`.
    """
    places = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    bins = []
    for place in np.unique(places):
        inside = places == place
        right, photos = int(correct[inside].sum()), int(inside.sum())
        low, high = wilson_interval(right, photos)
        bins.append(Bin(float(confidence[inside].mean()), right / photos, low, high, photos))
    return bins


def reliability_diagram(bins: Sequence[Bin]) -> str:
    """Draw accuracy over confidence; a calibrated model is on the diagonal. Larger dots are more photos."""
    most = max((one.photos for one in bins), default=1)
    drawn = [_line(_at(0), _up(0), _at(1), _up(1), "ideal")]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        drawn.append(_line(_at(0), _up(tick), _at(1), _up(tick), "grid"))
        drawn.append(_text(_at(0) - 6, _up(tick) + 4, f"{tick:.0%}", "end"))
        drawn.append(_text(_at(tick), _up(0) + 16, f"{tick:.0%}", "middle"))
    for one in bins:
        x, radius = _at(one.confidence), 3 + 5 * (one.photos / most) ** 0.5
        drawn.append(_line(x, _up(one.low), x, _up(one.high), "whisker"))
        title = f"{one.photos} photos: confidence {one.confidence:.1%}, accuracy {one.accuracy:.1%}"
        drawn.append(
            f"<circle class='harvested' cx='{x:.1f}' cy='{_up(one.accuracy):.1f}' r='{radius:.1f}'>"
            f"<title>{title}</title></circle>"
        )
    drawn.append(_text(_at(0.5), _up(0) + 34, "confidence", "middle"))
    return _svg("Accuracy by confidence", _SIDE, _SIDE, drawn)


def recall_bars(metrics: Metrics, classes: Sequence[str]) -> str:
    """Draw the recall of each class that has photos, with its 95 % Wilson interval."""
    totals = {name: sum(row) for name, row in zip(classes, metrics.confusion, strict=True)}
    width = 2 * _SIDE
    room = width - _NAME_PX - 2 * _MARGIN
    drawn = []
    for place, (name, recall) in enumerate(metrics.recall.items()):
        y = place * _ROW + 6
        low, high = wilson_interval(recall * totals[name], totals[name])
        drawn.append(_text(_NAME_PX - 8, y + 13, name[:24], "end"))
        drawn.append(f"<rect class='bar' x='{_NAME_PX}' y='{y}' width='{room * recall:.1f}' height='16'/>")
        drawn.append(_line(_NAME_PX + room * low, y + 8, _NAME_PX + room * high, y + 8, "whisker"))
        drawn.append(_text(_NAME_PX + room + 6, y + 13, f"{recall:.1%} of {totals[name]}"))
    return _svg("Recall by class", width, len(metrics.recall) * _ROW + 12, drawn)


def curve(series: Mapping[str, Sequence[tuple[int, float]]], what: str) -> str:
    """Draw values over steps, one line per name."""
    points = [point for line in series.values() for point in line]
    if not points:
        return ""
    last, highest = max(step for step, _ in points) or 1, max(value for _, value in points) or 1.0
    drawn = [_line(_at(0), _up(0), _at(1), _up(0), "axis")]
    for line in series.values():
        path = " ".join(f"{_at(step / last):.1f},{_up(value / highest):.1f}" for step, value in line)
        drawn.append(f"<polyline class='harvested line' points='{path}'/>")
    drawn.append(_text(_at(0) - 6, _up(1) + 4, f"{highest:.2g}", "end"))
    drawn.append(_text(_at(1), _up(0) + 16, f"{last} steps", "end"))
    return _svg(what, _SIDE, _SIDE, drawn)


def _at(share: float) -> float:
    return _MARGIN + share * (_SIDE - 1.5 * _MARGIN)


def _up(share: float) -> float:
    return _SIDE - _MARGIN - share * (_SIDE - 1.5 * _MARGIN)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f"<line class='{kind}' x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}'/>"


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    return f"<text class='{kind}' x='{x:.1f}' y='{y:.1f}'>{html.escape(text)}</text>"


def _svg(name: str, width: float, height: float, drawn: Sequence[str]) -> str:
    label = html.escape(name, quote=True)
    return (
        f"<svg viewBox='0 0 {width:g} {height:g}' style='max-width:{width:g}px' role='img' "
        f"aria-label='{label}'>{''.join(drawn)}</svg>"
    )
