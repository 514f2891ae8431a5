"""SVG plots; equal figures give equal files."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

from bench.figures import Figure, Spread

_WIDE = 20
"""Ratio of the largest to the smallest value from which an axis is logarithmic."""

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "gleaner"  # otherwise the ids in the file are random
mpl.rcParams["svg.fonttype"] = "none"


def plot(title: str, points: Sequence[tuple[Figure, Spread]], path: Path) -> None:
    """Draw a line for each contestant, with the range of its repeats as error bars."""
    lines: dict[str, list[tuple[float, Spread]]] = {}
    for figure, values in points:
        lines.setdefault(figure.of, []).append((figure.x or 0.0, values))
    training_views, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for name, line in lines.items():
        ordered = sorted(line)
        middle = [values.median for _, values in ordered]
        below = [values.median - values.low for _, values in ordered]
        above = [values.high - values.median for _, values in ordered]
        axes.errorbar([x for x, _ in ordered], middle, [below, above], label=name, marker="o", capsize=3)
    xs = [figure.x or 0.0 for figure, _ in points]
    ys = [values.median for _, values in points]
    if min(xs) > 0 and max(xs) > _WIDE * min(xs):
        axes.set_xscale("log")
    if min(ys) > 0 and max(ys) > _WIDE * min(ys):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    across, _, up = title.rpartition(" by ")[::-1]
    axes.set_xlabel(across)
    axes.set_ylabel(f"{up}, {points[0][0].unit}")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    training_views.savefig(path, metadata={"Date": None})
    plt.close(training_views)
