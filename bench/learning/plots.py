"""Plot accuracy by round."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from cloud.modeling.arrays import Floats


def draw(curves: Mapping[str, Floats], title: str, path: Path) -> None:
    """Draw the mean of each policy over the seeds; the policy `full` also with its range.

    Args:
        curves: accuracies by policy, `[seeds, rounds]`.
        title: name of the scenario.
        path: the SVG file to write.
    """
    mpl.rcParams["svg.hashsalt"] = "gleaner"  # otherwise the ids in the file are random
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, runs in curves.items():
        rounds = range(1, runs.shape[1] + 1)
        bold = name == "full"
        axes.plot(
            rounds, 100 * runs.mean(axis=0), label=name, linewidth=2.5 if bold else 1.2, marker="o", ms=3
        )
        if bold:
            axes.fill_between(rounds, 100 * runs.min(axis=0), 100 * runs.max(axis=0), alpha=0.15)
    axes.set(title=title, xlabel="round", ylabel="gold accuracy, %", xticks=list(rounds))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})
