"""Compare inference runtimes by photos per CPU second: `python -m bench.runtimes --photos DIR`.

DIR has `train/`, `gold/` and `other/` (photos of neither class). The model is trained on `train/` and served
as in production; its converted network also runs in LiteRT and ONNX Runtime in the environment of the rivals.
They alternate, and processor time is measured. `other/` is for the novelty score.
"""

import argparse
import asyncio
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from bench import procfs
from bench.machine import ROOT
from bench.photos import pictures
from bench.rival import rivals_environment
from bench.stack import listening
from bus.broker.process import free_port
from cloud.dataset.example import Example
from cloud.export.saved_model import export_saved_model
from cloud.export.serving_module import Model
from cloud.modeling.arrays import Ints
from cloud.modeling.backbones import Backbone, get_backbone, preprocess
from cloud.modeling.linear_head import fit_head
from cloud.modeling.novelty import fit_novelty, novelty_scores
from cloud.progress import NoProgress
from cloud.training.embeddings import embeddings
from demo.processes import Processes
from device.cameras.replay import photo_files
from edge.serving.client import Predictor

Vectors = NDArray[np.float32]

CLASSES = ("cat", "dog")
_CACHE = Path(".cache/features")
_CALIBRATING = 100
_TIMED = 64
_SERVERS = {
    "TensorFlow": ("--runtime=tensorflow",),
    "LiteRT float32": ("--runtime=tensorflow", "--prefer_tflite_model"),
}
_TENSORFLOW = "TensorFlow"
_DRAWN, _GOLD = "640 x 480", "gold"
_BATCHES = (1, 16)

Spent = dict[tuple[str, int, str], list[float]]
"""CPU milliseconds per photo in each round, by kind of photos, batch size and runtime."""


class Evaluation(NamedTuple):
    """The model and the true classes for the evaluation.

    Args:
        model: Trained on `train/`.
        truth: Class indices of the gold photos, which are the first of the evaluated photos.
    """

    model: Model
    truth: Ints


def prepare(photos: Path, plan: Backbone, folder: Path) -> Evaluation:
    """Train the model; write it in all formats, with a list of the photos to classify, into a folder."""
    network = plan.build()
    train, gold = (
        [f for name in CLASSES for f in photo_files(photos / split / name)] for split in ("train", "gold")
    )
    known = [Example("", file.read_bytes(), file.parent.name, "human") for file in train]
    seen = embeddings(known, plan, network, _CACHE, NoProgress())
    labels, truth = (np.array([CLASSES.index(f.parent.name) for f in files]) for files in (train, gold))
    head = fit_head(seen, labels, np.ones(len(labels)), len(CLASSES))
    model = Model(plan, network, head, 1.0, CLASSES, fit_novelty(seen))
    (folder / "served").mkdir()
    with export_saved_model(model, folder / "served/1", tflite=True):
        pass
    calibrating = [train[at] for at in np.random.default_rng(0).permutation(len(train))[:_CALIBRATING]]
    write_networks(network, plan, [file.read_bytes() for file in calibrating], folder)
    synthetic = folder / "drawn"
    synthetic.mkdir()
    for number, image in enumerate(pictures(_TIMED)):
        (synthetic / f"{number}.jpg").write_bytes(image)
    asked: dict[str, object] = {
        "size_px": plan.input_size_px, "offset": plan.offset, "scale": plan.scale,
        "calibrating": [str(file) for file in calibrating],
        "judged": [str(file) for file in (*gold, *photo_files(photos / "other"))],
        "timed": {
            _DRAWN: sorted(str(file) for file in synthetic.iterdir()),
            _GOLD: [str(file) for file in gold[:: len(gold) // _TIMED][:_TIMED]],
        },
    }  # fmt: skip
    (folder / "plan.json").write_text(json.dumps(asked), encoding="utf-8")
    return Evaluation(model, truth)


def write_networks(network: keras.Model, plan: Backbone, calibrating: list[bytes], folder: Path) -> None:
    """Write the network alone: as a SavedModel, and for LiteRT with several number formats."""
    shape = network.input_shape[1:]
    module = tf.Module()
    module.listed = [weight.value for weight in network.weights]
    module.embed = tf.function(
        lambda images: network(images, training=False),
        input_signature=[tf.TensorSpec([None, *shape], tf.float32, name="pixels")],
    )
    tf.saved_model.save(module, str(folder / "network"))
    one = tf.function(module.embed, input_signature=[tf.TensorSpec([1, *shape], tf.float32)])
    images = preprocess(plan, tf.constant(calibrating)).numpy()
    for name in ("float32", "dynamic", "int8"):
        converter = tf.lite.TFLiteConverter.from_concrete_functions([one.get_concrete_function()], module)
        if name != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if name == "int8":
            converter.representative_dataset = lambda: ([image[None]] for image in images)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        (folder / f"{name}.tflite").write_bytes(converter.convert())


async def rivals(folder: Path, *words: str) -> str:
    """Run the script in the environment of the rivals, and return its standard output."""
    python = await rivals_environment() / "python"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = await asyncio.create_subprocess_exec(
        str(python), "-m", "bench.rivals.runtimes", str(folder), *words,
        env=environment, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"bench.rivals.runtimes failed with exit code {process.returncode}")
    return out.decode()


def timed(folder: Path) -> dict[str, list[bytes]]:
    """Read the photos for the timing."""
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    return {kind: [Path(path).read_bytes() for path in paths] for kind, paths in plan["timed"].items()}


async def served(folder: Path, rounds: int, photos: Mapping[str, Sequence[bytes]]) -> list[str]:
    """Measure two model servers alternately over gRPC, and return the rows of the tables."""
    rows, spent = list[str](), Spent()
    async with Processes(folder / "logs") as processes, AsyncExitStack() as asking:
        servers = {}
        for name, flags in _SERVERS.items():
            port, began_s = free_port(), time.monotonic()
            words = (f"--port={port}", "--model_name=pets", f"--model_base_path={folder / 'served'}", *flags)
            await processes.start(name, "modelserver", *words)
            await listening(port, processes)
            rows.append(f"| model server, {name} | {time.monotonic() - began_s:.1f} s |")
            predictor = await asking.enter_async_context(Predictor(f"127.0.0.1:{port}", "pets"))
            servers[name] = processes.pid(name), predictor
        for kind, batch in list(itertools.product(photos, _BATCHES)) * rounds:
            for name, (pid, predictor) in servers.items():
                before_s = procfs.cpu_s(pid)
                for at in range(0, len(photos[kind]), batch):
                    await predictor.predict(photos[kind][at : at + batch])
                ms = 1000 * (procfs.cpu_s(pid) - before_s) / len(photos[kind])
                spent.setdefault((kind, batch, name), []).append(ms)
        for at, (pid, _) in enumerate(servers.values()):
            rows[at] += f" {procfs.resident_bytes(pid) / 1e6:.0f} MB |"
    return [*_ratios(spent), "", "| process | start | resident |", "|---|---|---|", *rows]


def _ratios(spent: Spent) -> list[str]:
    """Return a table of milliseconds and speed-up over TensorFlow by runtime: median (range)."""
    columns = sorted({(kind, batch) for kind, batch, _ in spent})
    rows = ["| way | " + " | ".join(f"{kind}, batches of {batch}" for kind, batch in columns) + " |"]
    rows.append("|---" * (1 + len(columns)) + "|")
    for way in dict.fromkeys(way for *_, way in spent):
        cells = []
        for kind, batch in columns:
            times, base = spent[kind, batch, way], spent[kind, batch, _TENSORFLOW]
            ratios = [first / second for first, second in zip(base, times, strict=True)]
            cells.append(
                f"{statistics.median(times):.1f} ms, {statistics.median(ratios):.2f} x "
                f"({min(ratios):.2f} to {max(ratios):.2f})"
            )
        rows.append(f"| {way} | " + " | ".join(cells) + " |")
    return rows


def judge(evaluation: Evaluation, answers: dict[str, Vectors]) -> list[str]:
    """Return a table of how the same head classifies the embeddings of each runtime."""
    model, count = evaluation.model, len(evaluation.truth)
    predicted = {name: model.head.logits(vectors[:count]).argmax(axis=1) for name, vectors in answers.items()}
    rows = ["| way | gold | other answers | of these right | least cosine | AUROC |", "|---" * 6 + "|"]
    for name, vectors in answers.items():
        right, changed = predicted[name] == evaluation.truth, predicted[name] != predicted[_TENSORFLOW]
        novelty, cosine = novelty_scores(model.novelty, vectors), _cosine(vectors, answers[_TENSORFLOW]).min()
        area = auroc(novelty[:count], novelty[count:])
        rows.append(
            f"| {name} | {100 * right.mean():.2f} % | {changed.sum()} of {count} | {(changed & right).sum()} "
            f"| {cosine:.4f} | {area:.4f} |"
        )
    return rows


def auroc(known: Vectors, foreign: Vectors) -> float:
    """Return the probability that a photo of neither class has a higher novelty than one of a known class."""
    ranks = np.concatenate([known, foreign]).argsort().argsort()[len(known) :]
    return float((ranks.sum() - len(foreign) * (len(foreign) - 1) / 2) / (len(known) * len(foreign)))


def _cosine(first: Vectors, second: Vectors) -> Vectors:
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return np.asarray((first * second).sum(axis=1) / np.maximum(lengths, 1e-12))


async def measure(photos: Path, backbone: str, rounds: int, folder: Path) -> list[str]:
    """Run all measurements, and return the tables of the document."""
    evaluation = prepare(photos, get_backbone(backbone), folder)
    lines = await served(folder, rounds, timed(folder))
    await rivals(folder, "--rounds", str(rounds))
    for name in ("float32.tflite", "float32.onnx"):
        footprint = json.loads(await rivals(folder, "--footprint", str(folder / name)))
        lines.append(f"| {name} | {footprint['seconds']:.1f} s | {footprint['resident_mb']:.0f} MB |")
    spent = Spent()
    for one in json.loads((folder / "times.json").read_text(encoding="utf-8")):
        spent.setdefault((one["photos"], one["batch"], one["way"]), []).append(one["ms"])
    answers = dict(np.load(folder / "answers.npz"))
    return [*lines, "", *_ratios(spent), "", *judge(evaluation, answers)]


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--backbone", default="efficientnet-lite0", help="(efficientnet-lite0)")
    parser.add_argument("--rounds", type=int, default=7, help="(7)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gleaner-runtimes-") as folder:
        for line in asyncio.run(measure(given.photos, given.backbone, given.rounds, Path(folder))):
            print(line)


if __name__ == "__main__":
    main()
