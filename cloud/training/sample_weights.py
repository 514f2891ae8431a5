"""Which examples count how much: the decisions of a training, as plain functions."""

import warnings
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from cloud.dataset.example import Source
from cloud.modeling.arrays import Floats, Ints

Mask = NDArray[np.bool_]

HUMAN_SHARE = 0.5
"""Least share of the weight that human labels have in a training."""
CLASS_RATIO = 3.0
"""Most that one class may outweigh another."""
SOURCE_WEIGHTS: dict[Source, float] = {"human": 1.0, "teacher": 1.0, "edge": 0.5}
"""How much an example counts beside others that no person labelled; people have their share in any case."""
FOLDS = 5


def training_weights(labels: Ints, human: Mask, base: Floats, classes: int) -> Floats:
    """Weigh examples so that people outweigh models and no class drowns another.

    Human labels are balanced over the classes and get at least half of the weight, more if they are
    the greater part. Harvested labels are brought within the class ratio, and their part shrinks if
    they cover so few classes that the whole would leave it.

    Args:
        labels: `[N]`, in [0, classes); each class has at least one human label.
        human: `[N]`.
        base: `[N]`, the examples' own weights.
        classes: K.

    Returns:
        `[N]`, sums to 1.
    """
    weights = np.zeros(len(labels))
    weights[human] = _balanced(labels[human], base[human], ratio=1.0)
    harvested_count = int((~human).sum())
    if harvested_count == 0:
        return weights
    harvested = _balanced(labels[~human], base[~human], ratio=CLASS_RATIO)
    masses = np.bincount(labels[~human], weights=harvested, minlength=classes)
    # At share s a class weighs (1 - s) / K + s * mass; solved for the largest against the least.
    excess = max(0.0, float(masses.max() - CLASS_RATIO * masses.min()))
    within_ratio = (CLASS_RATIO - 1) / (CLASS_RATIO - 1 + classes * excess)
    share = min(1 - HUMAN_SHARE, harvested_count / len(labels), within_ratio)
    weights[human] *= 1 - share
    weights[~human] = share * harvested
    return weights


def _balanced(labels: Ints, base: Floats, ratio: float) -> Floats:
    """Scale weights to a sum of 1 in which no class has more than `ratio` times another's."""
    names, positions = np.unique(labels, return_inverse=True)
    masses = np.bincount(positions, weights=base, minlength=len(names))
    wanted = np.minimum(masses, ratio * masses.min())
    return np.asarray(base * (wanted / masses)[positions] / wanted.sum())


def folds(labels: Ints, seed: int, count: int = FOLDS) -> Iterator[tuple[Ints, Ints]]:
    """Split examples for stratified cross-validation.

    Args:
        labels: `[N]`, at least 0.
        seed: of the shuffling.
        count: number of folds; fewer if no class has that many examples.

    Yields:
        Positions to train on and positions held out. A class's only example is never held out, since nothing
        would be left to learn it from; nothing is yielded if no class has two examples.
    """
    sizes = np.bincount(labels)
    repeated = np.flatnonzero(sizes[labels] > 1)
    if len(repeated) == 0:
        return
    splitter = StratifiedKFold(min(count, int(sizes.max())), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A class with fewer examples than folds is in some folds only, which is all that the warning says.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        splits = list(splitter.split(repeated, labels[repeated]))
    for _, chosen in splits:
        held_out = repeated[chosen]
        yield np.setdiff1d(np.arange(len(labels)), held_out), held_out
