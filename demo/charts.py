"""Charts of the report as SVG; the colours are CSS classes of the page."""

import html
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

_WIDTH, _HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 150, 16, 40
_BINS = 32


class Series(NamedTuple):
    """A line of means with the range around them.

    Args:
        name: Name of the series.
        colour: CSS class.
        points: `(x, lowest y, mean y, highest y)` of each point.
    """

    name: str
    colour: str
    points: Sequence[tuple[float, float, float, float]]


class Mark(NamedTuple):
    """A labelled point with its interval in y."""

    name: str
    x: float
    low: float
    y: float
    high: float


def learning_curve(series: Sequence[Series], marks: Sequence[Mark]) -> str:
    """Draw accuracies, 0 to 1, over the number of labels."""
    xs = [mark.x for mark in marks]
    lows = [mark.low for mark in marks] + [low for line in series for _, low, _, _ in line.points]
    bottom = min(0.95, max(0.0, int(20 * min(lows)) / 20))  # rounded down to 5 %
    first, last = min(xs), max(*xs, min(xs) + 1)  # never equal: the scale divides by the difference

    def across(x: float) -> float:
        return _LEFT + (x - first) / (last - first) * (_WIDTH - _LEFT - _RIGHT)

    def up(y: float) -> float:
        return _TOP + (1 - y) / (1 - bottom) * (_HEIGHT - _TOP - _BOTTOM)

    ticks = sorted({x for line in series for x, *_ in line.points})
    drawn = [*_grid(bottom, up), *_labels_axis(ticks, across)]
    # All bands first: SVG paints in this order, and no band may cover a line.
    for line in series:
        band = [(across(x), up(high)) for x, _, _, high in line.points]
        band += [(across(x), up(low)) for x, low, _, _ in reversed(line.points)]
        drawn.append(f"<polygon class='{line.colour} band' points='{_points(band)}'/>")
    for line in series:
        path = [(across(x), up(mean)) for x, _, mean, _ in line.points]
        drawn.append(f"<polyline class='{line.colour} line' points='{_points(path)}'/>")
        drawn += [f"<circle class='{line.colour}' cx='{x:.1f}' cy='{y:.1f}' r='3'/>" for x, y in path]
    for number, mark in enumerate(marks):
        x = across(mark.x)
        drawn.append(f"<path class='whisker' d='M{x:.1f} {up(mark.low):.1f}V{up(mark.high):.1f}'/>")
        drawn.append(f"<circle class='mark' cx='{x:.1f}' cy='{up(mark.y):.1f}' r='6'/>")
        below = 22 if number == 0 else 4  # its text would cover the line that starts there
        drawn.append(_text(x + 12, up(mark.y) + below, f"{mark.name}: {mark.y:.1%}", "strong"))
    return _svg("Accuracy on gold by number of human labels", drawn)


def histogram(ordered: Sequence[float], marked: Sequence[tuple[str, float]], unit: str) -> str:
    """Draw the histogram of sorted values from 0 to the largest, with some values marked."""
    end = max(ordered)
    counts = [0] * _BINS
    for value in ordered:
        counts[min(_BINS - 1, int(value / end * _BINS))] += 1
    room, floor = _WIDTH - 2 * _LEFT, _HEIGHT - _BOTTOM
    drawn = []
    for number, count in enumerate(counts):
        tall = count / max(counts) * (floor - 2 * _TOP - 16)
        x = _LEFT + number * room / _BINS
        drawn.append(
            f"<rect class='bar' x='{x:.1f}' y='{floor - tall:.1f}' width='{room / _BINS - 2:.1f}' "
            f"height='{tall:.1f}'/>"
        )
    drawn.append(f"<path class='axis' d='M{_LEFT} {floor}H{_WIDTH - _LEFT}'/>")
    drawn += [_text(_LEFT + room * value / end, floor + 18, f"{value:g}", "middle") for value in _ticks(end)]
    drawn.append(_text(_LEFT + room / 2, floor + 35, unit, "middle"))
    for row, (name, value) in enumerate(marked):
        x = _LEFT + value / end * room
        side = "end" if value > end / 2 else ""
        drawn.append(f"<path class='whisker' d='M{x:.1f} {_TOP}V{floor}'/>")
        shift = -6 if side else 6
        drawn.append(_text(x + shift, _TOP + 12 + 16 * row, f"{name} {value:.0f} {unit}", f"strong {side}"))
    return _svg(f"Histogram in {unit}", drawn)


def _ticks(end: float) -> list[float]:
    """Return four to ten round values from 0 to the end."""
    step = 10 ** math.floor(math.log10(end))
    while end / step < 4:  # noqa: PLR2004  # at least four ticks
        step /= 2
    return [number * step for number in range(math.floor(end / step) + 1)]


def _grid(bottom: float, up: Callable[[float], float]) -> list[str]:
    lines = []
    step = 0.05 if bottom >= 0.7 else 0.1  # noqa: PLR2004  # five or six lines
    for number in range(round((1 - bottom) / step) + 1):
        y = 1 - number * step
        lines.append(f"<path class='grid' d='M{_LEFT} {up(y):.1f}H{_WIDTH - _RIGHT}'/>")
        lines.append(_text(_LEFT - 8, up(y) + 4, f"{y:.0%}", "end"))
    return lines


def _labels_axis(xs: Sequence[float], across: Callable[[float], float]) -> list[str]:
    floor = _HEIGHT - _BOTTOM
    ticks = [_text(across(x), floor + 18, f"{x:.0f}", "middle") for x in xs]
    middle = (across(xs[0]) + across(xs[-1])) / 2 if xs else _WIDTH / 2
    return [*ticks, _text(middle, floor + 35, "human labels", "middle")]


def _points(path: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in path)


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    return f"<text class='{kind}' x='{x:.1f}' y='{y:.1f}'>{html.escape(text)}</text>"


def _svg(name: str, drawn: Sequence[str]) -> str:
    return (
        f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT}' role='img' aria-label='{html.escape(name, quote=True)}'>"
        f"{''.join(drawn)}</svg>"
    )
