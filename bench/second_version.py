"""What makes the second version good: `python -m bench.second_version`, with `--photos DIR` on real ones too.

Plays the demonstration's round on cached embeddings: version 1 from ten labels, its confidence in each photo
of the stream, 20 labels by a person, the candidates of version 2, and their accuracy on gold, over many seeds
and with one decision varied at a time. Only the accuracies are taken from gold; nothing is chosen by it.
"""

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from cloud.dataset.example import Example
from cloud.modeling import linear_head
from cloud.modeling.arrays import Floats, Ints, softmax
from cloud.modeling.backbones import EFFICIENTNET_LITE0
from cloud.progress import NoProgress
from cloud.training import sample_weights
from cloud.training.candidates import (
    HARVESTED,
    HUMAN,
    HeldOut,
    Labelled,
    choose,
    cross_validate,
    fit_candidates,
)
from cloud.training.embeddings import embeddings
from cloud.training.learners import Fitted, FrozenLearner
from demo.photos import collect, draw
from device.cameras.replay import photo_files
from edge.harvest.image import shrink

Vectors = NDArray[np.float32]

SEEDS = 20
REVIEWS = 20
_CACHE = Path(".cache/features")


@dataclass(frozen=True, slots=True)
class World:
    """The photos of a seed, as embeddings `[N, D]` and class numbers `[N]`."""

    labelled: Vectors
    labelled_truth: Ints
    stream: Vectors
    harvested: Vectors
    """The stream again, as the edge shrinks it for the way to the cloud."""
    stream_truth: Ints
    gold: Vectors
    gold_truth: Ints


Select = Callable[[Floats, Ints, np.random.Generator], Ints]
"""From confidences and labels of the stream to the positions that a person labels."""


def least_certain(confidence: Floats, labels: Ints, generator: np.random.Generator) -> Ints:
    """Take the least certain ones, as `gleaner cloud review` does."""
    del labels, generator
    return np.argsort(confidence, kind="stable")[:REVIEWS]


def of_each_class(confidence: Floats, labels: Ints, generator: np.random.Generator) -> Ints:
    """Take the least certain ones of each answered class, equally many."""
    del generator
    order, classes = np.argsort(confidence, kind="stable"), np.unique(labels)
    share = REVIEWS // len(classes)
    return np.concatenate([order[labels[order] == name][:share] for name in classes])


def every_third(confidence: Floats, labels: Ints, generator: np.random.Generator) -> Ints:
    """Take every third of the 60 least certain ones."""
    del labels, generator
    return np.argsort(confidence, kind="stable")[: 3 * REVIEWS : 3]


def at_random(confidence: Floats, labels: Ints, generator: np.random.Generator) -> Ints:
    """Take any."""
    del labels
    return generator.permutation(len(confidence))[:REVIEWS]


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to make version 2; the defaults are the product's, the threshold is the demo's former one.

    Args:
        name: In the table.
        select: Which photos a person labels.
        auto_confidence: From which on the model's own label is a candidate for training.
        human_share: Least share of people's labels in the weight of a training.
        prior_variance: Of the head's weights.
        sure: How sure a model of people's labels has to be of a harvested label; None takes all of them.
        soft: Whether a harvested photo is also trained on, a little, as what else it might be.
    """

    name: str = "auto from 0.8"
    select: Select = least_certain
    auto_confidence: float = 0.8
    human_share: float = sample_weights.HUMAN_SHARE
    prior_variance: float = linear_head.PRIOR_VARIANCE
    sure: float | None = 0.0
    soft: bool = False


VARIANTS = (
    Variant(),
    Variant("of each class the least certain", select=of_each_class),
    Variant("every third of the 60 least certain", select=every_third),
    Variant("labels at random", select=at_random),
    Variant("harvested up to 10 % of the weight", human_share=0.9),
    Variant("harvested up to 25 %", human_share=0.75),
    Variant("harvested up to 75 %", human_share=0.25),
    Variant("harvested labels not confirmed", sure=None),
    Variant("confirmed with 70 % at least", sure=0.7),
    Variant("soft labels", soft=True),
    Variant("auto from 0.7", auto_confidence=0.7),
    Variant("auto from 0.9", auto_confidence=0.9),
    Variant("prior variance 0.1", prior_variance=0.1),
    Variant("prior variance 1", prior_variance=1.0),
    Variant("prior variance 100", prior_variance=100.0),
)


@dataclass(frozen=True, slots=True)
class Played:
    """What a round gave: accuracies on gold, and the answers to held-out labels to choose by."""

    first: float
    human: float
    harvested: float
    confirmed: int
    held_out: dict[str, HeldOut] = field(repr=False)


def play(world: World, seed: int, variant: Variant) -> Played:
    """Play a round."""
    with (
        patch.object(sample_weights, "HUMAN_SHARE", variant.human_share),
        patch.object(linear_head, "PRIOR_VARIANCE", variant.prior_variance),
    ):
        return _play(world, seed, variant)


def _play(world: World, seed: int, variant: Variant) -> Played:
    labels = world.labelled_truth
    ones = np.ones(len(labels))
    known = Labelled(labels, ones > 0, ones < 0, ones < 0, ones, 2)
    learner = FrozenLearner(None, world.labelled, 2)
    first = fit_candidates(learner, known, np.arange(len(labels)))[HUMAN].head
    temperature = cross_validate(learner, known, seed=seed, progress=NoProgress())[HUMAN].temperature
    answers = softmax(first.logits(world.stream) / temperature)
    said, confidence = answers.argmax(axis=1), answers.max(axis=1)

    asked = variant.select(confidence, said, np.random.default_rng(seed))
    auto = np.setdiff1d(np.flatnonzero(confidence >= variant.auto_confidence), asked)
    by_person = np.arange(len(labels) + len(asked) + len(auto)) < len(labels) + len(asked)
    known = Labelled(
        labels=np.concatenate([labels, world.stream_truth[asked], said[auto]]),
        human=by_person,
        teacher=np.zeros(len(by_person), bool),
        auto=~by_person,
        weights=np.concatenate([ones, np.ones(len(asked)), confidence[auto]]),
        classes=2,
    )
    learner = FrozenLearner(
        None, np.concatenate([world.labelled, world.harvested[asked], world.harvested[auto]]), 2
    )
    human = np.flatnonzero(known.human)
    fitted = fit_candidates(learner, known, human)
    held_out = cross_validate(learner, known, seed=seed, progress=NoProgress())
    second = fitted.get(HARVESTED, fitted[HUMAN])
    if variant.soft or variant.sure != 0.0:
        answers = softmax(fitted[HUMAN].head.logits(learner.features) / held_out[HUMAN].temperature)
        second = _otherwise(learner, known, answers, variant)
    return Played(
        first=_accuracy(first, world),
        human=_accuracy(fitted[HUMAN].head, world),
        harvested=_accuracy(second.head, world),
        confirmed=len(np.unique(second.positions)) - len(human),
        held_out=held_out,
    )


def _otherwise(learner: FrozenLearner, known: Labelled, answers: Floats, variant: Variant) -> Fitted:
    """Train as the product does not: without confirmation, with a surer one, or on soft labels."""
    agreed = answers.argmax(axis=1) == known.labels
    sure = answers[np.arange(len(answers)), known.labels] >= (variant.sure or 0.0)
    taken = np.flatnonzero(known.human | (agreed & sure if variant.sure is not None else True))
    labels, weights = known.labels[taken], known.weigh(taken)
    if variant.soft:  # the other of two classes, by what the edge was not sure of
        doubt = np.where(known.human[taken], 0.0, 1 - known.weights[taken])
        taken, labels = np.tile(taken, 2), np.concatenate([labels, 1 - labels])
        weights = np.concatenate([weights * (1 - doubt), weights * doubt])
        kept = weights > 0
        taken, labels, weights = taken[kept], labels[kept], weights[kept]
    return learner.fit(taken, labels, weights)


def _accuracy(classifier: linear_head.Head, world: World) -> float:
    return float((classifier.logits(world.gold).argmax(axis=1) == world.gold_truth).mean())


def chosen_by(rule: str, round_: Played) -> float:
    """Return the gold accuracy of the candidate that a rule chooses by held-out labels.

    Args:
        rule: `least loss` is the product's; `… unless 1 SE` names who wins unless the other is better by
            more than a standard error of the paired losses; `better` is nobody's: it looks at gold.
        round_: What was played.
    """
    human, harvested = round_.human, round_.harvested
    gain = _losses(round_.held_out[HUMAN]) - _losses(round_.held_out[HARVESTED])
    error = gain.std(ddof=1) / np.sqrt(len(gain))
    takes_harvested = {
        "people alone": False,
        "harvested always": True,
        "least loss": choose([HUMAN, HARVESTED], round_.held_out) == HARVESTED,
        "people unless 1 SE": bool(gain.mean() > error),
        "harvested unless 1 SE": bool(gain.mean() > -error),
        "more right": (round_.held_out[HARVESTED].accuracy or 0) > (round_.held_out[HUMAN].accuracy or 0),
        "better": harvested > human,
    }
    return harvested if takes_harvested[rule] else human


RULES = (
    "people alone",
    "harvested always",
    "least loss",
    "people unless 1 SE",
    "harvested unless 1 SE",
    "more right",
    "better",
)


def _losses(held_out: HeldOut) -> Floats:
    answers = softmax(held_out.logits / held_out.temperature)
    return np.asarray(-np.log(answers[np.arange(len(held_out.labels)), held_out.labels].clip(1e-12)))


def worlds(photos: Path | None, seeds: int) -> Iterator[World]:
    """Embed the photos of each seed: drawn ones, or those of a folder with `train/ stream/ gold/`."""
    network = EFFICIENTNET_LITE0.build()
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            drawn = Path(folder, "drawn")
            if photos is None:
                for _ in draw(drawn, seed):
                    pass
            chosen = collect(photos or drawn, Path(folder, "photos"), seed)

            def embed(split: Path, prepare: Callable[[bytes], bytes] = bytes) -> tuple[Vectors, Ints]:
                files = photo_files(split)
                names = sorted({file.parent.name for file in files})
                known = [Example("", prepare(file.read_bytes()), file.parent.name, "human") for file in files]
                vectors = embeddings(known, EFFICIENTNET_LITE0, network, _CACHE, NoProgress())
                return vectors, np.array([names.index(file.parent.name) for file in files])

            stream, truth = embed(chosen.stream)
            harvested, _ = embed(chosen.stream, lambda image: shrink(image).image)
            yield World(*embed(chosen.labelled), stream, harvested, truth, *embed(chosen.gold))
        print(f"seed {seed} is embedded", file=sys.stderr, flush=True)


def _row(name: str, values: list[float], first: list[float]) -> dict[str, object]:
    return {
        "way": name,
        "mean": round(float(np.mean(values)), 4),
        "sd": round(float(np.std(values, ddof=1)), 4),
        "least": round(min(values), 4),
        "above version 1": sum(value > one for value, one in zip(values, first, strict=True)),
    }


def measure(seen: list[World]) -> dict[str, object]:
    """Play all variants on all seeds, and return the tables."""
    ways = []
    for variant in VARIANTS:
        rounds = [play(world, seed, variant) for seed, world in enumerate(seen)]
        first = [played.first for played in rounds]
        human, harvested = [r.human for r in rounds], [r.harvested for r in rounds]
        ways.append(
            {
                "human": _row(variant.name, human, first),
                "human+harvested": _row(variant.name, harvested, first),
                "harvested wins": sum(b > a for a, b in zip(human, harvested, strict=True)),
                "harvested loses": sum(b < a for a, b in zip(human, harvested, strict=True)),
                "confirmed": round(float(np.mean([r.confirmed for r in rounds])), 1),
            }
        )
        if variant == Variant():
            rules = [_row(rule, [chosen_by(rule, played) for played in rounds], first) for rule in RULES]
            seeds = [[r.first, r.human, r.harvested, r.confirmed] for r in rounds]
            version_1 = _row("version 1", first, first)
        print(f"{variant.name} is played", file=sys.stderr, flush=True)
    return {"version 1": version_1, "rules": rules, "ways": ways, "seeds": seeds}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, help="a folder with train/ stream/ gold/; drawn ones without")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"({SEEDS})")
    arguments = parser.parse_args()
    with contextlib.redirect_stdout(sys.stderr):
        measured = measure(list(worlds(arguments.photos, arguments.seeds)))
    print(json.dumps({"photos": str(arguments.photos or "drawn"), **measured}))


if __name__ == "__main__":
    main()
