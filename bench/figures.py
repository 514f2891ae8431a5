"""Figures of a measurement: repeated values, compared with a reference of the same run. No I/O."""

import math
import statistics
from collections.abc import Sequence
from typing import Literal, NamedTuple

from msgspec import Struct

Way = Literal["median", "ratio", "difference"]


class Spread(NamedTuple):
    """Median, minimum and maximum of several values."""

    median: float
    low: float
    high: float


class Goal(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A bound for a figure, or for its ratio to or its difference from its reference."""

    least: float | None = None
    most: float | None = None
    of: Way = "median"

    def met(self, value: float) -> bool:
        """Return True if a value is within the bound."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)


class Figure(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One quantity of one contestant, measured several times.

    Args:
        name: What was measured; the same for each contestant.
        of: The contestant.
        unit: Unit of the values.
        values: One per repeat, in order.
        against: The contestant whose figure of the same name is the reference; None for no reference.
        goal: The bound to reach.
        chart: Title of its plot; None for no plot.
        x: Position on the x axis of the plot.
    """

    name: str
    of: str
    unit: str
    values: list[float]
    against: str | None = None
    goal: Goal | None = None
    chart: str | None = None
    x: float | None = None


class Judged(NamedTuple):
    """A figure compared with its reference."""

    figure: Figure
    value: Spread
    ratio: Spread | None
    difference: Spread | None
    met: bool | None


class Percentiles(NamedTuple):
    """Percentiles of latencies, in milliseconds."""

    p50: float
    p95: float
    p99: float


def spread(values: Sequence[float]) -> Spread:
    """Return median, minimum and maximum of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def percentile(values: Sequence[float], per_cent: float) -> float:
    """Return a percentile by nearest rank.

    Args:
        values: In any order; the result is NaN for none.
        per_cent: More than 0, at most 100.
    """
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[math.ceil(per_cent / 100 * len(ordered)) - 1]


def percentiles(values_s: Sequence[float]) -> Percentiles:
    """Return p50, p95 and p99 in milliseconds of times in seconds."""
    return Percentiles(*(1000 * percentile(values_s, at) for at in (50, 95, 99)))


def judge(figures: Sequence[Figure]) -> list[Judged]:
    """Compare each figure with its reference and its goal."""
    by_name = {(figure.name, figure.of): figure for figure in figures}
    return [_judge(figure, by_name.get((figure.name, figure.against or ""))) for figure in figures]


def _judge(figure: Figure, reference: Figure | None) -> Judged:
    value, ratio, difference = spread(figure.values), None, None
    if reference is not None:
        # Repeat by repeat: what slows the machine in one repeat slows both, and cancels out in the ratio.
        pairs = list(zip(figure.values, reference.values, strict=False))
        difference = spread([one - other for one, other in pairs])
        if all(other for _, other in pairs):
            ratio = spread([one / other for one, other in pairs])
    met = None
    if figure.goal is not None:
        reached = {"median": value, "ratio": ratio, "difference": difference}[figure.goal.of]
        met = reached is not None and figure.goal.met(reached.median)
    return Judged(figure, value, ratio, difference, met)
