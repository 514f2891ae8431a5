"""Distributed training with real processes on loopback, started as Kubeflow's trainer starts them."""

import asyncio
import json
import os
import re
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from cli.main import main
from cloud.dataset.example import TrainingError
from cloud.dataset.store import Row, Store
from cloud.export.v1_loader import SavedModel
from cloud.training.candidates import from_scratch
from cloud.training.distributed import Team, alone, join, worker_index
from tests.cloud import tiny, together
from tests.cloud.worker import EMBEDS
from tests.conftest import ROOT

# Importing TensorFlow 2.21 with a current NumPy and protobuf warns about their own deprecated names.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(tensorflow|keras|numpy|google).*")


def configs(count: int) -> list[str]:
    """Return TF_CONFIG for each of `count` workers on free ports."""
    listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    workers = [f"127.0.0.1:{one.getsockname()[1]}" for one in listening]
    for one in listening:
        one.close()
    cluster = {"worker": workers}
    return [
        json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}) for index in range(count)
    ]


async def run(config: str, words: Sequence[object]) -> tuple[int, str]:
    """Run a Python program as a worker; return its exit code and output."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *map(str, words), env={**os.environ, "TF_CONFIG": config}, cwd=ROOT,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def run_all(words: Sequence[Sequence[object]]) -> list[tuple[int, str]]:
    """Run several workers at the same time."""
    async with asyncio.timeout(240):
        return await asyncio.gather(*map(run, configs(len(words)), words))


def embedded(said: str) -> int:
    """Return how many photos a worker had to embed in its first call."""
    found = re.search(rf"^{EMBEDS} (\d+)$", said, re.MULTILINE)
    assert found is not None, said
    return int(found[1])


def test_the_parts_of_all_workers_are_the_whole() -> None:
    """The parts are disjoint, complete and in order, for any length."""
    strategy = alone().strategy
    for length in range(9):
        parts = [np.arange(length)[Team(strategy, index, 4).part(length)] for index in range(4)]
        assert np.concatenate(parts).tolist() == list(range(length))


def test_the_workers_index_is_read_as_tensorflow_specifies_it() -> None:
    """The chief is worker 0, parameter servers are not counted, and invalid content is an error."""
    cluster = {"chief": ["a:1"], "worker": ["b:1", "c:1"], "ps": ["d:1"]}

    def read(kind: str, index: object) -> tuple[int, int]:
        return worker_index(json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}}))

    assert [read("chief", 0), read("worker", "0"), read("worker", 1)] == [(0, 3), (1, 3), (2, 3)]
    for config in ("", "[]", "{}", '{"cluster": [], "task": {}}'):
        with pytest.raises(TrainingError, match="TF_CONFIG: expected a cluster with this worker's task"):
            worker_index(config)
    assert join({}).count == 1
    assert join(
        {"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}'}
    ).chief


@pytest.mark.slow
async def test_two_workers_train_the_model_that_one_trains(make_example, tmp_path: Path) -> None:
    """Both workers succeed, only the first writes a version, and it answers like that of a single worker.

    Before that one of them is killed in the middle: the other ends by itself, no version is there, and the
    next start goes on with what both had embedded.
    """
    store = Store.open(tmp_path / "photos.lance")
    photos = [make_example(label, seed) for label in ("dawn", "dusk") for seed in range(6)]
    said = {"human_by": "ann", "human_at_ms": 1, "origin": "import"}
    store.upsert(
        [
            Row(
                photo_id=photo.photo_id, image=photo.image, width=80, height=60, received_at_ms=1,
                human_label=photo.label, split="gold" if number % 6 == 5 else "train", **said,
            )
            for number, photo in enumerate(photos)
        ]
    )  # fmt: skip

    def words(name: str, *more: str) -> list[object]:
        places = ("--out", tmp_path / name, "--cache", tmp_path / f"{name}-cache", "--backbone", tiny.NAME)
        # What each worker exports is not the matter.
        words = ["-m", "tests.cloud.worker", *more, "cloud", "train", "--no-tflite"]
        return [*words, "--dataset", tmp_path / "photos.lance", *places]

    ended = await run_all([words("first"), words("second", "--killed")])
    assert [code for code, _ in ended] == [75, -signal.SIGKILL], ended
    assert "worker 0 lost the other workers" in ended[0][1]
    assert not (tmp_path / "first").exists()
    ran = await run_all([words("first"), words("second")])
    assert [code for code, _ in ran] == [0, 0], ran
    for (_, before), (_, after) in zip(ended, ran, strict=True):
        assert 0 < embedded(after) < embedded(before)
    assert main(list(map(str, words("single")[2:]))) == 0
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == [
        "1", "1.tar", "1.tar.parts", "1.tar.parts.parts",
    ]  # fmt: skip
    assert not (tmp_path / "second").exists()
    answers = []
    for name in ("first", "single"):
        with SavedModel(tmp_path / name / "1") as saved:
            answers.append(saved.predict([photo.image for photo in photos])["probabilities"])
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-4)


@pytest.mark.slow
async def test_two_workers_train_a_network_as_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients and batch statistics are those of the whole batch, however it is split."""
    names = ("first", "second")
    ran = await run_all([["-c", together.WORKER, tmp_path / f"{name}.npz"] for name in names])
    assert [code for code, _ in ran] == [0, 0], ran
    monkeypatch.setattr(from_scratch, "STEPS", (5, 5))
    single = together.fit(alone())
    first, second = (list(np.load(tmp_path / f"{name}.npz").values()) for name in names)
    for one, other, expected in zip(first, second, single, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_allclose(one, expected, rtol=1e-3, atol=1e-4)
