"""Compare policies of learning: `python -m bench.learning`.

Each policy starts from 40 labelled photos and lives through five rounds, with 20 labels by people in each.
The lanes, the teacher, the review, the candidates and the gate are those that the product runs, on embeddings
that are computed once.
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy.stats import t

from bench.learning.full import Full, decide_promotion
from bench.learning.plots import draw
from bench.learning.policies import AllLabels, Confident, HardOnly, Model, Policy, RandomLabels
from bench.learning.world import STRENGTHS, World, Worlds
from cli.progress import Bars
from cloud.modeling.linear_head import Head

SEEDS = 10
POLICIES: dict[str, Callable[[World, int], Policy]] = {
    "frozen": Policy,
    "confidence >= 0.8": partial(Confident, threshold=0.8),
    "confidence >= 0.95": partial(Confident, threshold=0.95),
    "confidence >= 0.99": partial(Confident, threshold=0.99),
    "labels at random": RandomLabels,
    "hard only": HardOnly,
    "full": Full,
    "all labels": AllLabels,
}


@dataclass(frozen=True, slots=True)
class Played:
    """What became of a policy.

    Attributes:
        accuracy: after each round, on gold as the cameras see it then.
        clean: at the end, on the gate's gold set.
        accepted: labels that no person gave and that were trained on.
        wrong: how many of them are not the truth.
        worst_step: the most that the gate's gold accuracy fell from one served version to the next.
        verdicts: of the gate, by decision.
    """

    accuracy: list[float]
    clean: float
    accepted: int
    wrong: int
    worst_step: float
    verdicts: dict[str, int]


def play(world: World, policy: Policy) -> Played:
    """Let a policy live through a world."""
    accuracy, clean = [], [policy.model.accuracy(world.gate)]
    for round_ in world.rounds:
        policy.live(round_.stream)
        accuracy.append(policy.model.accuracy(round_.gold))
        clean.append(policy.model.accuracy(world.gate))
    decisions = [verdict.decision for verdict in policy.verdicts] if isinstance(policy, Full) else []
    return Played(
        accuracy=accuracy,
        clean=clean[-1],
        accepted=policy.accepted.labels,
        wrong=policy.accepted.wrong,
        worst_step=max(before - after for before, after in itertools.pairwise(clean)),
        verdicts={decision: decisions.count(decision) for decision in dict.fromkeys(decisions)},
    )


def interval(values: list[float]) -> tuple[float, float]:
    """Return the 95 % interval of the mean over two seeds or more, by Student's t."""
    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return float(np.mean(values) - half), float(np.mean(values) + half)


def summary(played: list[Played], frozen: list[Played]) -> dict[str, object]:
    """Return means over seeds, with intervals; the gain is over the policy `frozen` on the same seeds."""
    last, mean = [p.accuracy[-1] for p in played], [float(np.mean(p.accuracy)) for p in played]
    gain = [one - float(np.mean(other.accuracy)) for one, other in zip(mean, frozen, strict=True)]
    accepted, wrong = sum(p.accepted for p in played), sum(p.wrong for p in played)
    return {
        "rounds": np.mean([p.accuracy for p in played], axis=0).round(4).tolist(),
        "last": round(float(np.mean(last)), 4),
        "last_interval": [round(end, 4) for end in interval(last)],
        "mean": round(float(np.mean(mean)), 4),
        "mean_interval": [round(end, 4) for end in interval(mean)],
        "gain": round(float(np.mean(gain)), 4),
        "gain_interval": [round(end, 4) for end in interval(gain)],
        "clean": round(float(np.mean([p.clean for p in played])), 4),
        "accepted": accepted,
        "wrong_share": round(wrong / accepted, 4) if accepted else None,
        "worst_step": round(max(p.worst_step for p in played), 4),
    }


def swapped(world: World) -> str:
    """Return the gate's decision on a model that calls every cat a dog."""
    champion = Policy(world, 0).model
    bad = Model(Head(-champion.head.kernel, -champion.head.bias))
    return decide_promotion(champion, bad, world.gate, [], best=0.0, seed=0).decision


def main() -> None:
    """Play, print the figures as JSON, and draw the curves."""
    parser = argparse.ArgumentParser(prog="bench.learning", description=__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="the collection, with manifest.csv")
    parser.add_argument(
        "--seeds", type=int, choices=range(2, 101), metavar="N", default=SEEDS, help=f"two or more ({SEEDS})"
    )
    parser.add_argument("--scenarios", nargs="+", choices=STRENGTHS, default=list(STRENGTHS), help="(all)")
    parser.add_argument(
        "--policies", nargs="+", choices=POLICIES, default=list(POLICIES), help="beside frozen (all)"
    )
    parser.add_argument("--cache", type=Path, default=Path(".cache/features"), help="keeps embeddings")
    parser.add_argument("--out", type=Path, default=Path("bench-out/learning"), help="(bench-out/learning)")
    arguments = parser.parse_args()
    policies = dict.fromkeys(["frozen", *arguments.policies])
    began = time.monotonic()
    results: dict[str, dict[str, list[Played]]] = {}
    gate_stops = set()
    with Bars() as bars:
        worlds = Worlds(arguments.photos, arguments.cache, bars)
        for scenario in arguments.scenarios:
            played = results.setdefault(scenario, {})
            for seed in range(arguments.seeds):
                world = worlds.make(scenario, seed)
                gate_stops.add(swapped(world))
                bars.start(f"{scenario}, seed {seed}", len(policies))
                for name in policies:
                    played.setdefault(name, []).append(play(world, POLICIES[name](world, seed)))
                    bars.advance()
    report = {
        "seeds": arguments.seeds,
        "took_s": round(time.monotonic() - began),
        "labels_swapped": sorted(gate_stops),
        "summary": {
            scenario: {name: summary(runs, played["frozen"]) for name, runs in played.items()}
            for scenario, played in results.items()
        },
        "runs": {
            scenario: {name: [asdict(run) for run in runs] for name, runs in played.items()}
            for scenario, played in results.items()
        },
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "learning.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for scenario, played in results.items():
        curves = {name: np.array([run.accuracy for run in runs]) for name, runs in played.items()}
        draw(curves, scenario, arguments.out / f"{scenario}.svg")
    sys.stdout.write(json.dumps({key: report[key] for key in report if key != "runs"}, indent=1) + "\n")


if __name__ == "__main__":
    main()
