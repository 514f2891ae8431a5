"""Does novelty tell photos of neither class? `python -m bench.novelty --photos DIR`.

DIR has `train/`, `stream/` and `gold/` with a folder for each class, and `other/`. Models of so many training
photos, drawn at random, say how novel the other photos are.
"""

import argparse
import json
from pathlib import Path
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from cloud.dataset.example import Example
from cloud.modeling import novelty
from cloud.modeling.backbones import EFFICIENTNET_LITE0
from cloud.progress import NoProgress
from cloud.training.embeddings import embeddings
from device.cameras.replay import photo_files

Values = NDArray[np.float32]

TRAINED_ON = (10, 20, 40, 100, 200, 1000)
PROTOTYPES = (512, 128)
PERCENTILES = (90.0, 95.0, 99.0)
JUDGED = ("stream", "gold", "other")
_CACHE = Path(".cache/features")


def auroc(known: Values, foreign: Values) -> float:
    """Return how often a foreign photo is more novel than a known one."""
    ranks = np.concatenate([known, foreign]).argsort().argsort()[len(known) :]
    return float((ranks.sum() - len(foreign) * (len(foreign) - 1) / 2) / (len(known) * len(foreign)))


def drawn(truth: NDArray[np.str_], count: int, seed: int) -> NDArray[np.int64]:
    """Draw as many training photos of each class."""
    generator, names = np.random.default_rng(seed), np.unique(truth)
    share = count // len(names)
    return np.concatenate([generator.permutation(np.flatnonzero(truth == name))[:share] for name in names])


def measure(vectors: dict[str, Values], truth: NDArray[np.str_], count: int, seeds: int) -> dict[str, object]:
    """Return the AUROC, and by percentile which share of each set is above 1: means over the seeds."""
    areas, above = list[float](), {percentile: list[list[float]]() for percentile in PERCENTILES}
    for seed in range(seeds):
        seen = vectors["train"][drawn(truth, count, seed)]
        for percentile, shares in above.items():
            with patch.object(novelty, "THRESHOLD_PERCENTILE", percentile):
                model = novelty.fit_novelty(seen, seed)
            said = {name: novelty.novelty_scores(model, vectors[name]) for name in JUDGED}
            shares.append([float((said[name] > 1).mean()) for name in JUDGED])
        areas.append(auroc(said["stream"], said["other"]))
    return {
        "trained on": count,
        "AUROC": round(float(np.mean(areas)), 4),
        **{
            f"{percentile:g}: {', '.join(JUDGED)} above 1": np.mean(shares, axis=0).round(3).tolist()
            for percentile, shares in above.items()
        },
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=10, help="(10)")
    arguments = parser.parse_args()
    network = EFFICIENTNET_LITE0.build()
    vectors, truth = dict[str, Values](), list[str]()
    for split in ("train", *JUDGED):
        files = photo_files(arguments.photos / split)
        photos = [Example("", file.read_bytes(), file.parent.name, "human") for file in files]
        vectors[split] = embeddings(photos, EFFICIENTNET_LITE0, network, _CACHE, NoProgress())
        if split == "train":
            truth = [photo.label for photo in photos]
    for most in PROTOTYPES:
        for count in TRAINED_ON:
            with patch.object(novelty, "MOST_PROTOTYPES", most):
                row = measure(vectors, np.array(truth), count, arguments.seeds)
            print(json.dumps({"kept": min(most, count), **row}), flush=True)


if __name__ == "__main__":
    main()
