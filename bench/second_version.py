"""How often the demonstration convinces: `python -m bench.second_version`; `--photos DIR` for real ones.

Plays the round of `demo/round.py` on embeddings, over many seeds of drawings: version 1 from ten labels, the
lanes of the demonstration's edge, 20 labels in the order of the review queue, version 2, and the gate. The
embeddings are disturbed a little, as by the 8-bit variant of another processor. Prints a line of JSON for
each round, then the counts.
"""

import argparse
import json
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bench.learning.policies import Model
from bench.learning.world import Vectors
from cloud.dataset.example import Example
from cloud.evaluation.paired_comparison import PairedPredictions
from cloud.evaluation.promotion_gate import Evidence, decide_promotion
from cloud.labeling.review_order import UnlabelledPhoto, most_informative, pool_weights
from cloud.labeling.review_queue import Embedded, build_pool
from cloud.modeling.arrays import Ints
from cloud.modeling.backbones import EFFICIENTNET_LITE0
from cloud.progress import NoProgress
from cloud.training.candidates.candidate_evaluation import evaluate_backbone
from cloud.training.candidates.candidate_results import CandidateResults
from cloud.training.candidates.candidates import HARVESTED, HUMAN
from cloud.training.candidates.learners import FrozenLearner
from cloud.training.embeddings import embeddings
from demo.cameras import AGENTS
from demo.photos import collect, draw
from demo.services import EDGE_CONFIG
from device.cameras.replay import photo_files
from edge.harvest.lanes import lane_of
from edge.harvest.shrinking.image import dhash, shrink
from edge.serving.prediction import Prediction
from schemas.lanes import AUDIT, AUTO
from schemas.policy_rules import HarvestRules

SEEDS = 24
REVIEWS = 20
NOISE = 0.1
"""Standard deviation of the disturbance, in units of that of the embeddings."""
_CACHE = Path(".cache/features")


@dataclass(frozen=True, slots=True)
class Drawn:
    """The photos of a seed: embeddings of labelled, stream and gold photos, and class numbers.

    Attributes:
        labelled: `[2, N, D]`, of the photos and of dimmed copies.
        stream: `[2, M, D]`, the same.
        seen: `[M, D]`, of the stream before the edge shrinks it.
        views: `[M]`, difference hashes.
        gold: `[G, D]`.
        truth: class numbers of labelled, stream and gold photos.
    """

    labelled: Vectors
    stream: Vectors
    seen: Vectors
    views: list[int]
    gold: Vectors
    truth: tuple[Ints, Ints, Ints]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(f"class {number}" for number in range(int(self.truth[0].max()) + 1))


def worlds(photos: Path | None, seeds: int) -> Iterator[Drawn]:
    """Embed the photos of each seed: drawn ones, or those of a folder."""
    network = EFFICIENTNET_LITE0.build()

    def embed(images: Sequence[bytes], *, dim: bool = False) -> Vectors:
        known = [Example("", image, "", "human") for image in images]
        return embeddings(known, EFFICIENTNET_LITE0, network, _CACHE, NoProgress(), dim=dim)

    def read(folder: Path) -> tuple[list[bytes], Ints]:
        files = photo_files(folder)
        names = sorted({file.parent.name for file in files})
        return [file.read_bytes() for file in files], np.array([names.index(f.parent.name) for f in files])

    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            drawn = Path(folder, "drawn")
            if photos is None:
                for _ in draw(drawn, seed):
                    pass
            chosen = collect(photos or drawn, Path(folder, "photos"), seed)
            (labelled, first), (stream, second), (gold, third) = map(
                read, (chosen.labelled, chosen.stream, chosen.gold)
            )
            small = [shrink(image).image for image in stream]
            yield Drawn(
                labelled=np.stack([embed(labelled), embed(labelled, dim=True)]),
                stream=np.stack([embed(small), embed(small, dim=True)]),
                seen=embed(stream),
                views=[dhash(image) for image in stream],
                gold=embed(gold),
                truth=(first, second, third),
            )


def demonstration_rules() -> HarvestRules:
    """Return the rules that the demonstration's edge harvests by."""
    return msgspec.convert(tomllib.loads(EDGE_CONFIG)["harvest"], HarvestRules)


def _train(world: Drawn, examples: list[Example], sights: Vectors, seed: int) -> CandidateResults:
    """Train on embeddings of photos and of their copies, `[2, n, D]`, and answer the gold photos."""
    order = sorted(range(len(examples)), key=lambda at: examples[at].photo_id)
    features, copies = sights[:, order]
    learner = FrozenLearner(None, np.concatenate([features, world.gold]), len(world.classes), copies)
    return evaluate_backbone(
        EFFICIENTNET_LITE0,
        learner,
        world.classes,
        [examples[at] for at in order],
        [Example("", b"", world.classes[number], "human") for number in world.truth[2]],
        seed=seed,
        progress=NoProgress(),
    )


def play(world: Drawn, seed: int, chance: np.random.Generator, noise: float = NOISE) -> dict[str, Any]:
    """Play a round; return its figures."""
    labels, stream_truth, truth = world.truth
    imported = [
        Example(f"{at:032x}", b"", world.classes[label], "human") for at, label in enumerate(labels.tolist())
    ]
    first = _train(world, imported, world.labelled, seed)
    model = Model(first.chosen_fit.head, first.chosen_held_out.temperature)

    seen = (world.seen + noise * world.seen.std() * chance.standard_normal(world.seen.shape)).astype(
        np.float32
    )
    rules, photos, predictions = demonstration_rules(), dict[str, UnlabelledPhoto](), list[Prediction]()
    places, devices = dict[str, int](), chance.permutation(len(seen)) % AGENTS
    for at, scores in enumerate(model.probabilities(seen).tolist()):
        answer = Prediction("pets", 1, dict(zip(world.classes, scores, strict=True)), b"")
        lane = AUDIT if chance.random() < rules.audit_share else lane_of(answer, rules).lane
        predictions.append(answer)
        if lane is None:
            continue
        photo_id = chance.bytes(16).hex()
        places[photo_id] = at
        photos[photo_id] = UnlabelledPhoto(
            photo_id=photo_id, device=str(devices[at]), dhash=f"{world.views[at]:016x}", lane=lane,
            edge_label=answer.label, confidence=answer.confidence, margin=answer.margin,
            entropy=answer.entropy,
        )  # fmt: skip

    weights = pool_weights(photos.values())
    pool = build_pool(
        weights, {key: Embedded(seen[places[key]], (devices[places[key]],)) for key in weights}, []
    )
    asked = {photo.photo_id for photo in most_informative(photos.values(), REVIEWS, pool)}

    examples, sights = list(imported), [world.labelled]
    for photo_id, photo in photos.items():
        at = places[photo_id]
        plain, dim = world.stream[:, at]
        if photo_id in asked and photo.lane != AUDIT:  # a labelled audit judges, and is not trained on
            label = world.classes[stream_truth[at]]
            examples.append(Example(photo_id, b"", label, "human", 1.0, photo.lane))
            sights.append(np.stack([plain, dim])[:, None])
        elif photo_id not in asked and photo.lane == AUTO:
            answer = predictions[at]
            examples.append(Example(photo_id, b"", answer.label, "edge", answer.confidence, photo.lane))
            sights.append(np.stack([plain, plain])[:, None])
    second = _train(world, examples, np.concatenate(sights, axis=1), seed)

    before, after = first.gold_answers, second.gold_answers
    assert before is not None
    assert after is not None

    def accuracy(answers: Any) -> float:
        return float((answers.argmax(axis=1) == truth).mean())

    pair = PairedPredictions(before, after, truth, np.ones(len(truth)))
    verdict = decide_promotion(Evidence(pair, accuracy(before), world.classes), 1, seed=seed)
    return {
        "seed": seed,
        "version 1": accuracy(before),
        "version 2": accuracy(after),
        **{name: accuracy(second.on_gold[name]) for name in (HUMAN, HARVESTED) if name in second.on_gold},
        "chosen": second.chosen,
        "decision": verdict.decision,
        "reason": verdict.reasons[0],
        "audits": sum(photo.lane == AUDIT for photo in photos.values()),
        "first class": float(np.mean([stream_truth[places[key]] == 0 for key in asked])),
    }


def summary(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return means, the least accuracy, and how often the gate decided what."""
    mean: Callable[[str], float] = lambda name: round(float(np.mean([one[name] for one in rounds])), 4)  # noqa: E731
    return {
        "rounds": len(rounds),
        "version 1": mean("version 1"),
        "human": mean(HUMAN),
        "version 2": mean("version 2"),
        "least": min(one["version 2"] for one in rounds),
        "better": sum(one["version 2"] > one["version 1"] for one in rounds),
        "decisions": Counter(one["decision"] for one in rounds),
    }


def main() -> None:
    """Play and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, help="a folder as for `gleaner demo`; drawn without")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"({SEEDS})")
    parser.add_argument("--draws", type=int, default=2, help="rounds for each seed (2)")
    arguments = parser.parse_args()
    rounds = []
    for seed, world in enumerate(worlds(arguments.photos, arguments.seeds)):
        for number in range(arguments.draws):
            rounds.append(play(world, seed, np.random.default_rng([seed, number])))
            print(json.dumps(rounds[-1]), flush=True)
    print(json.dumps(summary(rounds)), file=sys.stdout)


if __name__ == "__main__":
    main()
