"""Weights and cross-validation folds of the examples of a training."""

import warnings
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from cloud.dataset.example import Source
from cloud.modeling.arrays import Floats, Ints

Mask = NDArray[np.bool_]

HUMAN_SHARE = 0.5
"""Lowest share of the total weight that human labels have."""
CLASS_RATIO = 3.0
"""Highest ratio between the weights of two classes."""
SOURCE_WEIGHTS: dict[Source, float] = {"human": 1.0, "device": 1.0, "teacher": 1.0, "edge": 0.5}
"""Relative weight by label source; human labels have `HUMAN_SHARE` in any case."""
FOLDS = 5
"""Number of folds; fewer if no class has that many groups of near-duplicates."""


def training_weights(labels: Ints, human: Mask, base: Floats, classes: int) -> Floats:
    """Return the weight of each example in a training.

    Human labels are balanced over the classes and get at least half of the total weight, more if they are
    the majority. Labels by models are limited to the class ratio; their share shrinks where they cover few
    classes and the total would exceed it.

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
    model_count = int((~human).sum())
    if model_count == 0:
        return weights
    by_models = _balanced(labels[~human], base[~human], ratio=CLASS_RATIO)
    masses = np.bincount(labels[~human], weights=by_models, minlength=classes)
    # At share s a class weighs (1 - s) / K + s * mass. The largest s at which the heaviest class weighs no
    # more than CLASS_RATIO times the lightest one:
    excess = max(0.0, float(masses.max() - CLASS_RATIO * masses.min()))
    within_ratio = (CLASS_RATIO - 1) / (CLASS_RATIO - 1 + classes * excess)
    share = min(1 - HUMAN_SHARE, model_count / len(labels), within_ratio)
    weights[human] *= 1 - share
    weights[~human] = share * by_models
    return weights


def _balanced(labels: Ints, base: Floats, ratio: float) -> Floats:
    """Scale weights to sum to 1, with no class above `ratio` times the weight of another."""
    names, positions = np.unique(labels, return_inverse=True)
    masses = np.bincount(positions, weights=base, minlength=len(names))
    wanted = np.minimum(masses, ratio * masses.min())  # the lightest class is the measure
    return np.asarray(base * (wanted / masses)[positions] / wanted.sum())


def folds(labels: Ints, seed: int, groups: Ints | None = None) -> Iterator[tuple[Ints, Ints]]:
    """Split examples for stratified cross-validation, with the photos of a group on one side.

    Args:
        labels: `[N]`, at least 0.
        seed: of the shuffling.
        groups: `[N]`, numbers of the groups of near-duplicates; None if no two photos show the same. Photos
            of a group that have different labels show different things, and form a group per label.

    Yields:
        Positions to train on and positions held out. Nothing if no class has two groups.
    """
    if len(labels) == 0:
        return
    several = np.arange(len(labels)) if groups is None else np.asarray(groups)
    firsts, numbers = np.unique(np.stack([several, labels], axis=1), axis=0, return_inverse=True)
    numbers = numbers.ravel()
    sizes = np.bincount(firsts[:, 1])
    # The only group of a class is never held out: nothing would be left to learn the class from.
    repeated = np.flatnonzero(sizes[labels] > 1)
    if len(repeated) == 0:
        return
    splitter = StratifiedGroupKFold(min(FOLDS, int(sizes.max())), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # The warning is only that a class with fewer examples than folds is missing from some folds.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        splits = list(splitter.split(repeated, labels[repeated], numbers[repeated]))
    for _, chosen in splits:
        held_out = repeated[chosen]
        yield np.setdiff1d(np.arange(len(labels)), held_out), held_out
