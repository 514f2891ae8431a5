"""What a measurement says: figures with their repeats, held against a reference of the same run. No I/O."""

import math
import statistics
from collections.abc import Sequence
from typing import Literal, NamedTuple

from msgspec import Struct

Way = Literal["median", "ratio", "difference"]


class Spread(NamedTuple):
    """The middle of several values, with the least and the most of them."""

    median: float
    low: float
    high: float


class Goal(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A bound of a figure itself, or of its ratio to or difference from its reference."""

    least: float | None = None
    most: float | None = None
    of: Way = "median"

    def met(self, value: float) -> bool:
        """Tell whether a value lies within the bound."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)


class Figure(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One number of one contestant, measured several times.

    Args:
        name: What was measured; the same words for each contestant.
        of: The contestant.
        unit: Of the values.
        values: One for each repeat, in their order.
        against: The contestant whose figure of that name is the reference, None where there is none.
        goal: What it should reach.
        chart: Title of the plot that it belongs to; none without.
        x: Its place there.
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
    """A figure beside its reference."""

    figure: Figure
    value: Spread
    ratio: Spread | None
    difference: Spread | None
    met: bool | None


class Percentiles(NamedTuple):
    """Of latencies, in milliseconds."""

    p50: float
    p95: float
    p99: float


def spread(values: Sequence[float]) -> Spread:
    """Return median, least and most of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def percentile(values: Sequence[float], per_cent: float) -> float:
    """Return the least value that at least so many per cent of the values do not exceed (nearest rank).

    Args:
        values: In any order; NaN without any.
        per_cent: More than 0, at most 100.
    """
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[math.ceil(per_cent / 100 * len(ordered)) - 1]


def percentiles(values_s: Sequence[float]) -> Percentiles:
    """Return the usual percentiles, in milliseconds, of times in seconds."""
    return Percentiles(*(1000 * percentile(values_s, at) for at in (50, 95, 99)))


def judge(figures: Sequence[Figure]) -> list[Judged]:
    """Hold each figure against its reference, repeat by repeat, so that what slowed both cancels out."""
    by_name = {(figure.name, figure.of): figure for figure in figures}
    return [_judge(figure, by_name.get((figure.name, figure.against or ""))) for figure in figures]


def _judge(figure: Figure, reference: Figure | None) -> Judged:
    value, ratio, difference = spread(figure.values), None, None
    if reference is not None:
        pairs = list(zip(figure.values, reference.values, strict=False))
        difference = spread([one - other for one, other in pairs])
        if all(other for _, other in pairs):
            ratio = spread([one / other for one, other in pairs])
    met = None
    if figure.goal is not None:
        reached = {"median": value, "ratio": ratio, "difference": difference}[figure.goal.of]
        met = reached is not None and figure.goal.met(reached.median)
    return Judged(figure, value, ratio, difference, met)
