"""Measure heads of groups of devices on photos of meters: `python -m bench.learning.groups --meters DIR`.

Each meter is its own group. Candidates, whitening, alignment and the choice of a head are those of a
training; the embeddings are computed once. Three questions: what a head per meter gains where all meters mean
the same by a picture; what it gains where people label every other meter in another way, by the nearest digit
(`nearest`) or by the digit after the one below (`next`); and what the first labels of a new meter gain by the
heads of the others.
"""

import argparse
import csv
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.learning.__main__ import interval
from bench.learning.meters import CLASSES
from cloud.dataset.example import Example
from cloud.modeling.arrays import Floats, Ints, softmax
from cloud.modeling.backbones import BACKBONES, Backbone
from cloud.modeling.offset_head import answer_by_groups
from cloud.progress import NoProgress, Progress
from cloud.training.candidates.candidate_evaluation import evaluate_backbone
from cloud.training.candidates.candidate_results import CandidateResults
from cloud.training.candidates.learners import FrozenLearner
from cloud.training.embeddings import embeddings
from edge.harvest.shrinking.image import shrink

_METERS = 5
_EVALUATED = 400
_MIN_PHOTOS = 90
_HALF = 5
FIRST_LABELS = (10, 20)


@dataclass(frozen=True, slots=True)
class Photos:
    """All photos of meters.

    Attributes:
        vectors: `[N, D]`.
        dim: `[N, D]`, of dimmed copies.
        below: `[N]`, the digit below.
        nearest: `[N]`, the nearest digit.
        after: `[N]`, the digit after the one below.
        devices: `[N]`.
    """

    vectors: NDArray[np.float32]
    dim: NDArray[np.float32]
    below: Ints
    nearest: Ints
    after: Ints
    devices: NDArray[np.str_]


def read(folder: Path, backbone: Backbone, cache: Path, progress: Progress) -> Photos:
    """Read and embed the photos."""
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as manifest:
        rows = list(csv.DictReader(manifest))
    photos = [Example("", shrink((folder / row["path"]).read_bytes()).image, "", "human") for row in rows]
    network = backbone.build()
    plain, dim = (
        embeddings(photos, backbone, network, cache, progress, dim=dimmed) for dimmed in (False, True)
    )
    below = np.array([int(row["label"]) for row in rows])
    up = np.array([int(row["tenth"] or 0) >= _HALF for row in rows])
    nearest, after = ((below + step) % len(CLASSES) for step in (up, 1))
    return Photos(plain, dim, below, nearest, after, np.array([row["device"] for row in rows]))


def truth_of(photos: Photos, meters: Sequence[str], convention: str) -> Ints:
    """Return the labels where every other one of some meters is labelled in another way."""
    other = {"same": photos.below, "nearest": photos.nearest, "next": photos.after}[convention]
    return np.where(np.isin(photos.devices, meters[1::2]), other, photos.below)


@dataclass(frozen=True, slots=True)
class Split:
    """Positions of the photos of one seed."""

    meters: Sequence[str]
    evaluated: Ints
    pool: Ints


def split(photos: Photos, seed: int) -> Split:
    """Draw five meters, and from their photos those for evaluation."""
    draw = np.random.default_rng(seed)
    counts = Counter(photos.devices.tolist())
    several = sorted(name for name, count in counts.items() if count >= _MIN_PHOTOS)
    meters = [str(name) for name in draw.permutation(several)[:_METERS]]
    mixed = draw.permutation(np.flatnonzero(np.isin(photos.devices, meters)))
    return Split(meters, mixed[:_EVALUATED], mixed[_EVALUATED:])


def train(
    photos: Photos, truth: Ints, labelled: Ints, unlabelled: Ints, backbone: Backbone
) -> CandidateResults:
    """Train as a training does, with each meter as a group."""
    examples = [
        Example(f"{at:032x}", at.to_bytes(4), CLASSES[truth[at]], "human", group=str(photos.devices[at]))
        for at in labelled.tolist()
    ]
    sightings = {
        str(name): photos.vectors[unlabelled[photos.devices[unlabelled] == name]]
        for name in np.unique(photos.devices[unlabelled])
    }
    learner = FrozenLearner(None, photos.vectors[labelled], len(CLASSES), photos.dim[labelled])
    return evaluate_backbone(
        backbone, learner, CLASSES, examples, [], sightings=sightings, seed=0, progress=NoProgress()
    )


def answers(results: CandidateResults, photos: Photos, at: Ints) -> tuple[Floats, Floats]:
    """Return the probabilities of photos by the shared head, and by the heads of their meters."""
    temperature = results.chosen_held_out.temperature
    shared = softmax(results.chosen_fit.head.logits(photos.vectors[at]) / temperature)
    groups = photos.devices[at].tolist()
    return shared, answer_by_groups(results.groups.heads, groups, shared, photos.vectors[at])


def accuracy(probabilities: Floats, truth: Ints) -> float:
    """Return the share of right answers in per cent."""
    return 100 * float((probabilities.argmax(axis=1) == truth).mean())


def scenario(
    photos: Photos, backbone: Backbone, labels: int, seeds: int, *, convention: str
) -> dict[str, object]:
    """Compare the heads of meters with the shared one, seed by seed."""
    shared, grouped, heads, sources = [], [], [], Counter[str]()
    for seed in range(seeds):
        drawn = split(photos, seed)
        truth = truth_of(photos, drawn.meters, convention)
        labelled = drawn.pool[:labels]
        if len(np.unique(truth[labelled])) < len(CLASSES):
            continue
        results = train(photos, truth, labelled, drawn.pool[labels:], backbone)
        one, other = answers(results, photos, drawn.evaluated)
        shared.append(accuracy(one, truth[drawn.evaluated]))
        grouped.append(accuracy(other, truth[drawn.evaluated]))
        heads.append(len(results.groups.heads))
        sources.update(
            fit.source if fit.source in {"own", "aligned"} else "of another meter"
            for fit in results.groups.fits
            if fit.head is not None
        )
    return _compared(shared, grouped) | {"heads": round(float(np.mean(heads)), 2), "sources": dict(sources)}


def new_meter(
    photos: Photos, backbone: Backbone, labels: int, seeds: int, convention: str
) -> Iterator[dict[str, object]]:
    """Yield what the first labels of one more meter gain, whose labels are in the other way."""
    for first in FIRST_LABELS:
        shared, grouped, sources = [], [], Counter[str]()
        for seed in range(seeds):
            drawn = split(photos, seed)
            # The fourth is new: with the second it is labelled in the other way.
            name = drawn.meters[3]
            truth = truth_of(photos, drawn.meters, convention)
            newest = photos.devices[drawn.pool] == name
            own, rest = drawn.pool[newest], drawn.pool[~newest]
            labelled = np.concatenate([rest[:labels], own[:first]])
            if len(np.unique(truth[labelled])) < len(CLASSES):
                continue
            unlabelled = np.concatenate([rest[labels:], own[first:]])
            results = train(photos, truth, labelled, unlabelled, backbone)
            at = np.flatnonzero(photos.devices == name)
            at = np.setdiff1d(at, labelled)
            one, other = answers(results, photos, at)
            shared.append(accuracy(one, truth[at]))
            grouped.append(accuracy(other, truth[at]))
            found = next(fit for fit in results.groups.fits if fit.name == name)
            if found.head is not None:
                sources[found.source if found.source in {"own", "aligned"} else "of another meter"] += 1
        yield (
            {"first": first, "convention": convention}
            | _compared(shared, grouped)
            | {"sources": dict(sources)}
        )


def _compared(shared: list[float], grouped: list[float]) -> dict[str, object]:
    gains = [after - before for before, after in zip(shared, grouped, strict=True)]
    return {
        "seeds": len(gains),
        "shared": round(float(np.mean(shared)), 1),
        "groups": round(float(np.mean(grouped)), 1),
        "gain": round(float(np.mean(gains)), 2),
        "interval": [round(end, 2) for end in interval(gains)],
        "worst": round(min(gains), 2),
    }


def main() -> None:
    """Print one JSON line per figure."""
    parser = argparse.ArgumentParser(prog="bench.learning.groups", description=__doc__)
    parser.add_argument("--meters", type=Path, required=True, help="folder of photos with manifest.csv")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--labels", type=int, nargs="+", default=[60, 120, 200, 400])
    names = ("same", "nearest", "next")
    parser.add_argument("--conventions", nargs="*", choices=names, default=names)
    parser.add_argument("--new", nargs="*", choices=names, default=("same", "next"))
    parser.add_argument("--backbone", default="efficientnet-lite0-grid")
    parser.add_argument("--cache", type=Path, default=Path(".cache/features"))
    arguments = parser.parse_args()
    backbone = BACKBONES[arguments.backbone]
    photos = read(arguments.meters, backbone, arguments.cache, NoProgress())

    def show(figures: dict[str, object]) -> None:
        sys.stdout.write(json.dumps(figures) + "\n")
        sys.stdout.flush()

    for labels in arguments.labels:
        for convention in arguments.conventions:
            found = scenario(photos, backbone, labels, arguments.seeds, convention=convention)
            show({"labels": labels, "convention": convention} | found)
    for convention in arguments.new:
        for found in new_meter(photos, backbone, 200, arguments.seeds, convention):
            show({"new meter": True} | found)


if __name__ == "__main__":
    main()
