"""Plots as SVG that differ only where their figures do."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

from bench.figures import Figure, Spread

_WIDE = 20
"""From this ratio of the largest to the smallest on, an axis is logarithmic."""

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "gleaner"
mpl.rcParams["svg.fonttype"] = "none"


def plot(title: str, points: Sequence[tuple[Figure, Spread]], path: Path) -> None:
    """Draw a line for each contestant and name, with the spread of its repeats as bars."""
    lines: dict[str, list[tuple[float, Spread]]] = {}
    for figure, values in points:
        lines.setdefault(figure.of, []).append((figure.x or 0.0, values))
    shown, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
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
    shown.savefig(path, metadata={"Date": None})
    plt.close(shown)
