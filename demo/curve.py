"""The learning curve of a run: how good a model would have been with fewer of the reviewer's labels.

A process of its own (`python -m demo.curve DATASET FEATURES BACKBONE SEED`), since it loads TensorFlow. It
trains on the embeddings that the trainings kept, and prints its points as JSON.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from demo import reviewer

DRAWS = 8
"""Random choices of the labels that came first, at each point between none and all of them."""
_POINTS = 4


class Point(msgspec.Struct, frozen=True):
    """What so many labels of people give.

    Attributes:
        labels: How many, those of version 1 among them.
        human: Accuracy on gold from them alone, for each choice of them.
        harvested: The same with the harvested photos that they confirm.
    """

    labels: int
    human: list[float]
    harvested: list[float]


def choices(first: int, later: int, seed: int) -> Iterator[tuple[int, list[list[int]]]]:
    """Yield growing numbers of labels and choices of them: all first ones and some of the later ones.

    Args:
        first: Positions 0 up to it are always there.
        later: So many follow.
        seed: Of the choices.
    """
    generator = np.random.default_rng(seed)
    for number in sorted({later * part // _POINTS for part in range(_POINTS + 1)}):
        draws = 1 if number in {0, later} else DRAWS
        yield (
            first + number,
            [[*range(first), *(first + generator.permutation(later)[:number])] for _ in range(draws)],
        )


def points(dataset: str, features: Path, backbone: str, seed: int) -> list[Point]:
    """Train both candidates of each choice and judge them on gold; empty for a backbone without weights."""
    from cloud.dataset.example import class_names, label_indices  # noqa: PLC0415  # as above
    from cloud.dataset.store import Store  # noqa: PLC0415  # as above
    from cloud.dataset.training_set import examples  # noqa: PLC0415  # as above
    from cloud.modeling.backbones import get_backbone  # noqa: PLC0415  # loads TensorFlow
    from cloud.progress import NoProgress  # noqa: PLC0415  # as above
    from cloud.training.candidates import HARVESTED, HUMAN, Labelled, fit_candidates  # noqa: PLC0415  # as above
    from cloud.training.learners import learner_for  # noqa: PLC0415  # as above

    plan = get_backbone(backbone)
    if not plan.pretrained:  # each point would take minutes
        return []
    store = Store.open(dataset)
    reviewed = {row["photo_id"] for row in store.scan(["photo_id"], where=f"human_by = '{reviewer.NAME}'")}
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
    judged_on = np.arange(len(known), len(known) + len(gold))
    first = [at for at, example in enumerate(known) if example.human and example.photo_id not in reviewed]
    later = [at for at, example in enumerate(known) if example.photo_id in reviewed]
    positions = np.array(first + later)
    curve = []
    for number, draws in choices(len(first), len(later), seed):
        point = Point(number, [], [])
        for chosen in draws:
            fitted = fit_candidates(learner, labelled, positions[chosen])
            for name, accuracies in ((HUMAN, point.human), (HARVESTED, point.harvested)):
                answers = learner.logits(fitted.get(name, fitted[HUMAN]), judged_on).argmax(axis=1)
                accuracies.append(float((answers == truth).mean()))
        curve.append(point)
        print(f"{number} labels", file=sys.stderr, flush=True)
    return curve


if __name__ == "__main__":
    dataset, features, backbone, seed = sys.argv[1:]
    print(msgspec.json.encode(points(dataset, Path(features), backbone, int(seed))).decode())
