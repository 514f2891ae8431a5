"""Compute the learning curve of a run: the accuracy with fewer of the reviewer's labels.

Prints the points as JSON. It is a separate process because it loads TensorFlow:
`python -m demo.curve DATASET FEATURES BACKBONE SEED ASKED`.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from cloud.modeling.load_tensorflow import load_tensorflow
from demo import reviewer

DRAWS = 8
"""Random subsets of the reviewer's labels per point; the first and the last point have only one."""
_POINTS = 4


class Point(msgspec.Struct, frozen=True):
    """Accuracies with a number of human labels.

    Attributes:
        labels: Number of labels, including those of version 1.
        human: Accuracy on gold with these labels only, for each subset.
        harvested: The same with harvested photos that a model of these labels confirms.
    """

    labels: int
    human: list[float]
    harvested: list[float]


def subsets(first: int, later: int, seed: int) -> Iterator[tuple[int, list[list[int]]]]:
    """Yield increasing numbers of labels, each with subsets of that size.

    Args:
        first: The labels at positions 0 to `first` - 1 are in every subset.
        later: Number of further labels; each subset has some of them.
        seed: Seed of the subsets.
    """
    generator = np.random.default_rng(seed)
    # A set: with few labels several parts round to the same number.
    for number in sorted({later * part // _POINTS for part in range(_POINTS + 1)}):
        draws = 1 if number in {0, later} else DRAWS  # none or all: there is only one such subset
        yield (
            first + number,
            [[*range(first), *(first + generator.permutation(later)[:number])] for _ in range(draws)],
        )


def points(dataset: str, features: Path, backbone: str, seed: int, *, asked: str = "") -> list[Point]:
    """Train both candidates on each subset, evaluate on gold; empty for a backbone without weights.

    Args:
        dataset: The Lance table.
        features: Cache of embeddings.
        backbone: Name of the backbone of the second version, from its card.
        seed: Seed of the subsets.
        asked: Backbone that the run was asked for, which may be the user's: no name finds that one.
    """
    load_tensorflow()
    from cloud.dataset.example import class_names, label_indices  # noqa: PLC0415  # as above
    from cloud.dataset.store import Store  # noqa: PLC0415  # as above
    from cloud.dataset.training_set import examples  # noqa: PLC0415  # as above
    from cloud.modeling.backbones import get_backbone  # noqa: PLC0415  # loads TensorFlow
    from cloud.progress import NoProgress  # noqa: PLC0415  # as above
    from cloud.training.candidates.candidates import HARVESTED, HUMAN, Labelled, fit_candidates  # noqa: PLC0415  # as above
    from cloud.training.candidates.learners import learner_for  # noqa: PLC0415  # as above

    plan = get_backbone(asked or backbone)
    if plan.name != backbone:  # another one was better
        plan = get_backbone(backbone)
    if not plan.pretrained:  # training from scratch would take minutes per point
        return []
    store = Store.open(dataset)
    reviewed = {row["photo_id"] for row in store.scan(["photo_id"], where=f"human_by = '{reviewer.NAME}'")}
    # One learner over training and gold photos: they share its cached embeddings.
    known, gold = examples(store), examples(store, split="gold")
    names = class_names(known)
    learner = learner_for(
        plan,
        [*known, *gold],
        len(names),
        trainable=len(known),
        cache_dir=features,
        seed=seed,
        progress=NoProgress(),
    )
    labelled, truth = Labelled.of(known, names), label_indices(gold, names)
    gold_positions = np.arange(len(known), len(known) + len(gold))
    first = [at for at, example in enumerate(known) if example.human and example.photo_id not in reviewed]
    later = [at for at, example in enumerate(known) if example.photo_id in reviewed]
    positions = np.array(first + later)
    curve = []
    for number, draws in subsets(len(first), len(later), seed):
        point = Point(number, [], [])
        for subset in draws:
            fitted = fit_candidates(learner, labelled, positions[subset])
            for name, accuracies in ((HUMAN, point.human), (HARVESTED, point.harvested)):
                predicted = learner.logits(fitted.get(name, fitted[HUMAN]), gold_positions).argmax(axis=1)
                accuracies.append(float((predicted == truth).mean()))
        curve.append(point)
        print(f"{number} labels", file=sys.stderr, flush=True)
    return curve


if __name__ == "__main__":
    dataset, features, backbone, seed, asked = sys.argv[1:]
    print(msgspec.json.encode(points(dataset, Path(features), backbone, int(seed), asked=asked)).decode())
