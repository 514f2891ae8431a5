"""Charts as SVG: no script and no style attribute, colours from classes of the style sheet.

Each has a title and a description for those who do not see it; a page shows the figures as a table too.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from schemas.text import escaped

_WIDTH, _HEIGHT = 480, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 18, 18, 52
_MOST_TICKS = 5
_BARS_WIDTH, _ROW, _NAME_PX, _NOTE_PX = 440, 34, 110, 140
_NAME_CHARS = 14
_unique = itertools.count()


class Point(NamedTuple):
    """A value with its interval."""

    x: float
    low: float
    y: float
    high: float


@dataclass(frozen=True, slots=True)
class Line:
    """A line with the band of its intervals.

    Attributes:
        tone: class of the style sheet: `one`, `two` or `ahead`.
        points: by increasing x.
        dotted: whether each point has a dot.
    """

    tone: str
    points: Sequence[Point]
    dotted: bool = True


class Mark(NamedTuple):
    """A point with a name and an interval."""

    name: str
    point: Point


class Bar(NamedTuple):
    """A share with its interval, and what stands behind it."""

    name: str
    low: float
    share: float
    high: float
    note: str


@dataclass(frozen=True, slots=True)
class Frame:
    """The texts of a chart.

    Attributes:
        title: what is drawn.
        description: what is to be seen, in a sentence.
        across: title of the x axis.
        limit: a horizontal line, None without.
        highest: The largest y that is drawn; None: 1.
    """

    title: str
    description: str
    across: str
    limit: float | None = None
    highest: float | None = None


def line_chart(frame: Frame, lines: Sequence[Line], marks: Sequence[Mark] = ()) -> Markup:
    """Draw shares, 0 to 1, over numbers.

    Args:
        frame: Title, axes and limit.
        lines: At least one point in all of them, or a mark.
        marks: Named points.
    """
    points = [point for line in lines for point in line.points] + [mark.point for mark in marks]
    top = min(1.0, frame.highest or 1.0)
    bottom = 0.0 if frame.highest else _bottom(min(point.low for point in points))
    first, last = _range([point.x for point in points])

    def across(x: float) -> float:
        return _LEFT + (x - first) / (last - first) * (_WIDTH - _LEFT - _RIGHT)

    def up(y: float) -> float:
        return _TOP + (top - min(max(y, bottom), top)) / (top - bottom) * (_HEIGHT - _TOP - _BOTTOM)

    drawn = [*_levels(bottom, top, up), *_ticks(first, last, across), _centred(frame.across)]
    if frame.limit is not None:
        drawn.append(_stroke("limit", _LEFT, up(frame.limit), _WIDTH - _RIGHT, up(frame.limit)))
    # All bands first: no band may cover a line.
    drawn += [_band(line, across, up) for line in lines]
    drawn += [_path(line, across, up) for line in lines]
    for number, mark in enumerate(marks):
        drawn.append(_mark(mark, across, up, above=number % 2 == 0))
    return _svg(frame.title, frame.description, _WIDTH, _HEIGHT, drawn)


def interval_bars(title: str, description: str, bars: Sequence[Bar]) -> Markup:
    """Draw a bar per share, each with its interval and a note behind it."""
    room = _BARS_WIDTH - _NAME_PX - _NOTE_PX
    drawn = []
    for row, bar in enumerate(bars):
        y = row * _ROW + 6
        drawn.append(_text(_NAME_PX - 10, y + 14, _short(bar.name), "end"))
        drawn.append(
            Markup('<rect class="track" x="{}" y="{}" width="{:.1f}" height="18" rx="4"/>').format(
                _NAME_PX, y, float(room)
            )
        )
        drawn.append(
            Markup('<rect class="bar" x="{}" y="{}" width="{:.1f}" height="18" rx="4"/>').format(
                _NAME_PX, y, room * bar.share
            )
        )
        drawn.append(_stroke("whisker", _NAME_PX + room * bar.low, y + 9, _NAME_PX + room * bar.high, y + 9))
        drawn.append(_text(_NAME_PX + room + 10, y + 14, bar.note, "start"))
    return _svg(title, description, _BARS_WIDTH, max(1, len(bars)) * _ROW + 8, drawn)


def _bottom(lowest: float) -> float:
    return min(0.9, max(0.0, math.floor(10 * lowest) / 10))


def _range(xs: Sequence[float]) -> tuple[float, float]:
    first, last = min(xs), max(xs)
    # Never equal: the scale divides by the difference.
    return (first, last) if last > first else (first - 1, last + 1)


def _step(span: float, most: int) -> float:
    """Return the round step that gives at most this many ticks."""
    rough = span / most
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)


def _levels(bottom: float, top: float, up: Callable[[float], float]) -> list[Markup]:
    step = _step(top - bottom, 5)
    digits = max(0, -math.floor(math.log10(step * 100) + 1e-9))
    drawn = []
    for number in range(math.floor(bottom / step + 1e-9), math.ceil(top / step - 1e-9) + 1):
        y = number * step
        if bottom - 1e-9 <= y <= top + 1e-9:
            drawn.append(_stroke("grid", _LEFT, up(y), _WIDTH - _RIGHT, up(y)))
            drawn.append(_text(_LEFT - 8, up(y) + 4, f"{y:.{digits}%}", "end"))
    return drawn


def _ticks(first: float, last: float, across: Callable[[float], float]) -> list[Markup]:
    step = max(1.0, _step(last - first, _MOST_TICKS))
    return [
        _text(across(number * step), _HEIGHT - _BOTTOM + 22, f"{number * step:.0f}", "middle")
        for number in range(math.ceil(first / step), math.floor(last / step) + 1)
    ]


def _centred(text: str) -> Markup:
    return _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, text, "middle")


def _band(line: Line, across: Callable[[float], float], up: Callable[[float], float]) -> Markup:
    upper = [(across(one.x), up(one.high)) for one in line.points]
    lower = [(across(one.x), up(one.low)) for one in reversed(line.points)]
    return Markup('<polygon class="band {}" points="{}"/>').format(line.tone, _joined(upper + lower))


def _path(line: Line, across: Callable[[float], float], up: Callable[[float], float]) -> Markup:
    path = [(across(one.x), up(one.y)) for one in line.points]
    drawn = Markup('<polyline class="line {}" points="{}"/>').format(line.tone, _joined(path))
    if line.dotted:
        dot = Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="3.5"/>')
        drawn += Markup().join(dot.format(line.tone, x, y) for x, y in path)
    return drawn


def _mark(
    mark: Mark, across: Callable[[float], float], up: Callable[[float], float], *, above: bool
) -> Markup:
    x, point = across(mark.point.x), mark.point
    anchor = "end" if x > 0.8 * _WIDTH else "start"
    shift = -10 if anchor == "end" else 10
    return (
        _stroke("whisker", x, up(point.low), x, up(point.high))
        + Markup('<circle class="mark" cx="{:.1f}" cy="{:.1f}" r="6"/>').format(x, up(point.y))
        + _text(x + shift, up(point.y) + (-8 if above else 20), _short(mark.name), f"{anchor} strong")
    )


def _stroke(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(
        kind, x1, y1, x2, y2
    )


def _text(x: float, y: float, text: str, kind: str) -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(kind, x, y, escaped(text))


def _short(name: str) -> str:
    return name if len(name) <= _NAME_CHARS else f"{name[: _NAME_CHARS - 1]}…"


def _joined(path: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in path)


def _svg(title: str, description: str, width: int, height: int, drawn: Sequence[Markup]) -> Markup:
    # Ids are unique in a page, which may have several charts.
    number = next(_unique)
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-labelledby="chart-{}-title chart-{}-text">'
        '<title id="chart-{}-title">{}</title><desc id="chart-{}-text">{}</desc>{}</svg>'
    ).format(
        width,
        height,
        number,
        number,
        number,
        escaped(title),
        number,
        escaped(description),
        Markup().join(drawn),
    )
