"""How optimistic is a training about a candidate whose teacher knew the held-out labels?

`python -m bench.heldout --photos DIR`. The cross-validation holds people's labels out of the candidates; the
teacher whose labels one of them learns was fitted to all of people's labels. Here each fold is played a
second time, with a teacher of the same threshold that was fitted without the fold; what differs is what the
teacher brought in. People's labels are of photos of the stream, and a share of them is wrong.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from bench.learning.world import CLASSES, PLAIN, World, Worlds
from cli.progress import Bars
from cloud.labeling.ensemble import (
    PRECISION,
    Embeddings,
    confidence_threshold,
    fit_ensemble,
    out_of_fold_votes,
)
from cloud.modeling.arrays import Floats, Ints, cross_entropy, softmax
from cloud.modeling.linear_head import fit_head, fit_temperature
from cloud.training.sample_weights import folds, training_weights

PEOPLE = 100
WRONG = (0.0, 0.02, 0.05, 0.1)
WAYS = ("knew", "did not", "none")
"""What the candidate's teacher knew of the held-out labels; and people's labels alone."""


def taught(
    known: Embeddings, labels: Ints, others: Embeddings, least: float, seed: int
) -> tuple[Embeddings, Ints]:
    """Return the other photos of which a teacher is sure, and what it calls them."""
    votes = fit_ensemble([known], labels, len(CLASSES), seed=seed).votes([others])
    sure = np.flatnonzero(votes.confidence >= least)
    return others[:, sure], votes.labels[sure]


def answers(known: Embeddings, labels: Ints, more: tuple[Embeddings, Ints], asked: Embeddings) -> Floats:
    """Train a candidate on people's labels and some more, and return its logits."""
    both = np.concatenate([labels, more[1]])
    human = np.arange(len(both)) < len(labels)
    weights = training_weights(both, human, np.ones(len(both)), len(CLASSES))
    seen = np.concatenate([known[PLAIN], more[0][PLAIN]])
    return fit_head(seen, both, weights, len(CLASSES)).logits(asked[PLAIN])


def measure(world: World, wrong: float, precision: float, seed: int) -> dict[str, float] | None:
    """Return temperatures and losses by the ways; None where people's labels make no teacher."""
    stream = np.concatenate([round_.stream.sights[:2] for round_ in world.rounds], axis=1)
    truth = np.concatenate([round_.stream.truth for round_ in world.rounds])
    gold = np.concatenate([round_.gold.sights[:2] for round_ in world.rounds], axis=1)
    gold_truth = np.concatenate([round_.gold.truth for round_ in world.rounds])
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(truth))
    known, others = stream[:, order[:PEOPLE]], stream[:, order[PEOPLE:]]
    labels = truth[order[:PEOPLE]]
    slips = draw.permutation(PEOPLE)[: round(wrong * PEOPLE)]
    labels[slips] = 1 - labels[slips]
    judged = out_of_fold_votes([known], labels, len(CLASSES), seed=seed)
    assert judged is not None
    least = confidence_threshold(judged[1].confidence, judged[1].labels == labels[judged[0]], precision)
    if least is None:
        return None
    nothing = others[:, :0], labels[:0]
    every = taught(known, labels, others, least, seed)
    parts: dict[str, list[Floats]] = {way: [] for way in WAYS}
    places = []
    for kept, apart in folds(labels, seed):
        people, said = known[:, kept], labels[kept]
        learnt = {"knew": every, "did not": taught(people, said, others, least, seed), "none": nothing}
        for way, more in learnt.items():
            parts[way].append(answers(people, said, more, known[:, apart]))
        places.append(apart)
    answered = labels[np.concatenate(places)]
    figures: dict[str, float] = {"taught": len(every[1])}
    for way, logits in parts.items():
        temperature = fit_temperature(np.concatenate(logits), answered)
        served = answers(known, labels, nothing if way == "none" else every, gold)
        figures |= {
            f"{way}: temperature": temperature,
            f"{way}: held-out loss": _loss(np.concatenate(logits), answered, temperature),
            f"{way}: gold loss": _loss(served, gold_truth, temperature),
        }
    return figures


def _loss(logits: Floats, labels: Ints, temperature: float) -> float:
    return cross_entropy(softmax(logits / temperature), np.eye(len(CLASSES))[labels])


def main() -> None:
    """Measure and print: means over the seeds that have a teacher."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3, help="(3)")
    parser.add_argument("--scenario", default="plain", help="(plain)")
    parser.add_argument(
        "--precision", type=float, default=PRECISION, help=f"that a teacher has to show ({PRECISION})"
    )
    parser.add_argument("--cache", type=Path, default=Path(".cache/features"))
    arguments = parser.parse_args()
    with Bars() as bars:
        worlds = Worlds(arguments.photos, arguments.cache, bars)
        made = [worlds.make(arguments.scenario, seed) for seed in range(arguments.seeds)]
    for wrong in WRONG:
        found = [measure(world, wrong, arguments.precision, seed) for seed, world in enumerate(made)]
        told = [one for one in found if one is not None]
        means = {key: round(float(np.mean([one[key] for one in told])), 4) for key in (told or [{}])[0]}
        row = {"wrong": wrong, "teachers": f"{len(told)} of {len(found)}"}
        print(json.dumps(row | means), flush=True)


if __name__ == "__main__":
    main()
