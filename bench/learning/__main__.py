"""Compare learning policies: `python -m bench.learning`.

Each policy starts with 40 labelled photos and learns in five rounds, with 20 human labels in each. Lanes,
teacher, review queue, candidates and promotion gate are those of the product, on embeddings that are computed
once.
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy.stats import t

from bench.learning.full import Full, decide_promotion
from bench.learning.meters import MeterWorlds
from bench.learning.plots import draw
from bench.learning.policies import (
    AlignedLabels,
    AllLabels,
    Confident,
    CoverageLabels,
    HardOnly,
    Model,
    Policy,
    RandomLabels,
)
from bench.learning.world import STRENGTHS, PhotoEmbedder, Photos, World, Worlds
from cli.progress import Bars
from cloud.modeling.linear_head import Head

SEEDS = 10
METERS = "meters"
"""Scenario with a new device in each round."""
POLICIES: dict[str, Callable[[World, int], Policy]] = {
    "frozen": Policy,
    "confidence >= 0.8": partial(Confident, threshold=0.8),
    "confidence >= 0.95": partial(Confident, threshold=0.95),
    "confidence >= 0.99": partial(Confident, threshold=0.99),
    "labels at random": RandomLabels,
    "hard only": HardOnly,
    "coverage": CoverageLabels,
    "aligned, at random": partial(AlignedLabels, drawn=True),
    "aligned, coverage": AlignedLabels,
    "full": Full,
    "full, at random": partial(Full, drawn=True),
    "full, no gate": partial(Full, gated=False),
    "full, at random, no gate": partial(Full, drawn=True, gated=False),
    "all labels": AllLabels,
}


@dataclass(frozen=True, slots=True)
class SimulationResult:
    """Result of a policy.

    Attributes:
        accuracy: accuracy after each round, on gold photos with the drift of that round.
        clean: final accuracy on the gold set of the gate, which has no drift.
        accepted: number of labels of models that were trained on.
        wrong: number of wrong ones among them.
        worst_step: largest drop of the accuracy on the gate's gold set between two served versions.
        so_far: after each round, the mean accuracy over the gate's gold set and the gold photos of all rounds
            so far: of a fleet whose earlier devices stay.
        worst_step_so_far: the smallest gain of these photos by a version that replaced another one.
        verdicts: decisions of the gate, counted.
    """

    accuracy: list[float]
    clean: float
    accepted: int
    wrong: int
    worst_step: float
    so_far: list[float]
    worst_step_so_far: float
    verdicts: dict[str, int]


def simulate(world: World, policy: Policy) -> SimulationResult:
    """Run a policy through all rounds of a world."""
    accuracy, clean = [], [policy.model.accuracy(world.gate)]
    so_far, steps = [], [0.0]
    seen = [world.gate]
    for round_ in world.rounds:
        seen.append(round_.gold)
        before = policy.model
        policy.learn(round_.stream)
        accuracy.append(policy.model.accuracy(round_.gold))
        clean.append(policy.model.accuracy(world.gate))
        so_far.append(_mean_accuracy(policy.model, seen))
        steps.append(so_far[-1] - _mean_accuracy(before, seen))
    decisions = [verdict.decision for verdict in policy.verdicts] if isinstance(policy, Full) else []
    return SimulationResult(
        accuracy=accuracy,
        clean=clean[-1],
        accepted=policy.accepted.labels,
        wrong=policy.accepted.wrong,
        worst_step=max(before - after for before, after in itertools.pairwise(clean)),
        so_far=so_far,
        worst_step_so_far=min(steps),
        verdicts={decision: decisions.count(decision) for decision in dict.fromkeys(decisions)},
    )


def _mean_accuracy(model: Model, sets: Sequence[Photos]) -> float:
    """Return the accuracy of a model on several sets of photos, each with the same weight."""
    return float(np.mean([model.accuracy(photos) for photos in sets]))


def interval(values: list[float]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of two or more values (Student's t)."""
    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return float(np.mean(values) - half), float(np.mean(values) + half)


def summary(
    runs: list[SimulationResult], frozen: list[SimulationResult], random: list[SimulationResult] | None = None
) -> dict[str, object]:
    """Return means over the seeds with intervals; gains are over `frozen`, and `random`, with equal seeds."""
    last, mean = [p.accuracy[-1] for p in runs], [float(np.mean(p.accuracy)) for p in runs]
    gain = [one - float(np.mean(other.accuracy)) for one, other in zip(mean, frozen, strict=True)]
    accepted, wrong = sum(p.accepted for p in runs), sum(p.wrong for p in runs)
    return {
        "rounds": np.mean([p.accuracy for p in runs], axis=0).round(4).tolist(),
        "last": round(float(np.mean(last)), 4),
        "last_interval": [round(end, 4) for end in interval(last)],
        "mean": round(float(np.mean(mean)), 4),
        "mean_interval": [round(end, 4) for end in interval(mean)],
        "gain": round(float(np.mean(gain)), 4),
        "gain_interval": [round(end, 4) for end in interval(gain)],
        **({} if random is None else _over(runs, random)),
        "clean": round(float(np.mean([p.clean for p in runs])), 4),
        "accepted": accepted,
        "wrong_share": round(wrong / accepted, 4) if accepted else None,
        "worst_step": round(max(p.worst_step for p in runs), 4),
        "so_far": np.mean([p.so_far for p in runs], axis=0).round(4).tolist(),
        "worst_step_so_far": round(min(p.worst_step_so_far for p in runs), 4),
    }


def _over(runs: list[SimulationResult], random: list[SimulationResult]) -> dict[str, object]:
    """Return the gains over labels at random: mean of the rounds, last round, all photos so far."""
    pairs = list(zip(runs, random, strict=True))
    mean = [float(np.mean(one.accuracy)) - float(np.mean(other.accuracy)) for one, other in pairs]
    last = [one.accuracy[-1] - other.accuracy[-1] for one, other in pairs]
    so_far = [one.so_far[-1] - other.so_far[-1] for one, other in pairs]
    return {
        "over_random": round(float(np.mean(mean)), 4),
        "over_random_interval": [round(end, 4) for end in interval(mean)],
        "last_over_random": round(float(np.mean(last)), 4),
        "last_over_random_interval": [round(end, 4) for end in interval(last)],
        "so_far_over_random": round(float(np.mean(so_far)), 4),
        "so_far_over_random_interval": [round(end, 4) for end in interval(so_far)],
    }


def gate_decision_on_swapped_labels(world: World) -> str:
    """Return the decision of the gate about a model that swaps cats and dogs."""
    champion = Policy(world, 0).model
    bad = Model(Head(-champion.head.kernel, -champion.head.bias))
    return decide_promotion(champion, bad, world.gate, [], best=0.0, seed=0).decision


def _world_makers(
    arguments: argparse.Namespace, embedder: PhotoEmbedder
) -> dict[str, Callable[[int], World]]:
    """Return by scenario the function from a seed to a world."""
    makers: dict[str, Callable[[int], World]] = {}
    for scenario in arguments.scenarios:
        if scenario == METERS:
            makers[scenario] = MeterWorlds(arguments.meters, embedder).make
        else:
            makers[scenario] = partial(Worlds(arguments.photos, embedder).make, scenario)
    return makers


def main() -> None:
    """Run all policies, print the figures as JSON, and draw the curves."""
    parser = argparse.ArgumentParser(prog="bench.learning", description=__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos with manifest.csv")
    parser.add_argument(
        "--seeds",
        type=int,
        choices=range(2, 101),
        metavar="N",
        default=SEEDS,
        help=f"number of seeds (default: {SEEDS})",
    )
    parser.add_argument(
        "--scenarios",
        nargs="+",
        choices=[*STRENGTHS, METERS],
        default=list(STRENGTHS),
        help="(default: all but meters)",
    )
    parser.add_argument("--meters", type=Path, help="folder of photos of meters with manifest.csv")
    parser.add_argument(
        "--policies",
        nargs="+",
        choices=POLICIES,
        default=list(POLICIES),
        help="in addition to frozen (default: all)",
    )
    parser.add_argument("--cache", type=Path, default=Path(".cache/features"), help="embedding cache")
    parser.add_argument(
        "--out", type=Path, default=Path("bench-out/learning"), help="(default: bench-out/learning)"
    )
    arguments = parser.parse_args()
    if METERS in arguments.scenarios and arguments.meters is None:
        parser.error("the scenario meters needs --meters DIR")
    policies = dict.fromkeys(["frozen", *arguments.policies])
    started_at = time.monotonic()
    results: dict[str, dict[str, list[SimulationResult]]] = {}
    gate_decisions = set()
    with Bars() as bars:
        embedder = PhotoEmbedder(arguments.cache, bars)
        make = _world_makers(arguments, embedder)
        for scenario in arguments.scenarios:
            by_policy = results.setdefault(scenario, {})
            for seed in range(arguments.seeds):
                world = make[scenario](seed)
                if len(world.classes) == 2:  # noqa: PLR2004 - swapping needs two
                    gate_decisions.add(gate_decision_on_swapped_labels(world))
                bars.start(f"{scenario}, seed {seed}", len(policies))
                for name in policies:
                    by_policy.setdefault(name, []).append(simulate(world, POLICIES[name](world, seed)))
                    bars.advance()
    report = {
        "seeds": arguments.seeds,
        "took_s": round(time.monotonic() - started_at),
        "labels_swapped": sorted(gate_decisions),
        "summary": {
            scenario: {
                name: summary(runs, by_policy["frozen"], by_policy.get("labels at random"))
                for name, runs in by_policy.items()
            }
            for scenario, by_policy in results.items()
        },
        "runs": {
            scenario: {name: [asdict(run) for run in runs] for name, runs in by_policy.items()}
            for scenario, by_policy in results.items()
        },
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "learning.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for scenario, by_policy in results.items():
        curves = {name: np.array([run.accuracy for run in runs]) for name, runs in by_policy.items()}
        draw(curves, scenario, arguments.out / f"{scenario}.svg")
    sys.stdout.write(json.dumps({key: report[key] for key in report if key != "runs"}, indent=1) + "\n")


if __name__ == "__main__":
    main()
