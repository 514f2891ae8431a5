"""Embedding on a real Ray cluster of three nodes, each its own process: `make test-ray`."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud.dataset.example import Example
from cloud.dataset.photo_caches import CacheFile, read_caches
from cloud.dataset.store import HAS_IMAGE, Label, Row, Store
from cloud.labeling.embedder import Embedder
from cloud.progress import NoProgress
from cloud.ray_jobs import cluster as ray_cluster
from cloud.ray_jobs.ahead import embed_for_training
from cloud.ray_jobs.cluster import embed_on_ray
from cloud.ray_jobs.task import Work
from cloud.training.candidates.candidate_evaluation import evaluate_candidates
from cloud.training.pipeline import TrainingOptions
from schemas.errors import PermanentError
from tests.cloud.tiny import NAME
from tests.conftest import ROOT

pytest.importorskip("ray", reason="Ray is not installed; 'make test-ray' installs it")

# Ray leaves sockets and threads to its processes; TensorFlow warns as everywhere.
pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("default")]
_PHOTOS, _PER_PIECE, _OBJECT_STORE_BYTES = 96, 4, 80 * 1024 * 1024


class Machines:
    """Three nodes of one core each; a test may kill one."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster  # noqa: PLC0415  # only where it is installed

        node = {"num_cpus": 1, "object_store_memory": _OBJECT_STORE_BYTES}
        self._cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
        self._nodes = [self._cluster.add_node(**node) for _ in range(2)]
        self.address = str(self._cluster.address)

    def kill_one(self) -> None:
        """Kill a node that is not the first, with its workers."""
        self._cluster.remove_node(self._nodes.pop(), allow_graceful=False)

    def stop(self) -> None:
        """Stop all."""
        self._cluster.shutdown()


class At:
    """Progress that calls a function when a number of photos is done."""

    def __init__(self, done: int, act: Callable[[], None]) -> None:
        self.done, self._at, self._act = 0, done, act

    def start(self, step: str, total: int) -> None:
        """Ignore the step."""

    def advance(self, count: int = 1) -> None:
        """Count, and act once."""
        before, self.done = self.done, self.done + count
        if before < self._at <= self.done:
            self._act()


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    """Start the nodes; their workers import this checkout."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        running = Machines()
        yield running
        running.stop()


@pytest.fixture
def store(make_example: Any, tmp_path: Path) -> Store:
    """A dataset of several fragments."""
    store = Store.open(tmp_path / "dataset")
    rows = [
        Row(photo_id=one.photo_id, image=one.image, width=80, height=60, received_at_ms=1)
        for one in (make_example("dawn", seed) for seed in range(_PHOTOS))
    ]
    for start in range(0, _PHOTOS, 30):
        store.upsert(rows[start : start + 30])
    return store


def stored(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return a list that gets the content id of each embedding that arrives."""
    found: list[bytes] = []
    merge = ray_cluster.merge_caches

    def merging(folder: Path, files: list[CacheFile]) -> None:
        found.extend(
            row[0]
            for file in files
            if file.table == "embedding" and "/" not in file.path
            for row in file.rows
        )
        merge(folder, files)

    monkeypatch.setattr(ray_cluster, "merge_caches", merging)
    return found


def test_a_run_that_is_interrupted_goes_on(
    machines: Machines, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came before an interruption is in the cache, and only the rest is computed afterwards."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    arrived = stored(monkeypatch)
    work = Work(store.location, NAME, mirrored=False, dim=False)
    with pytest.raises(KeyboardInterrupt):
        embed_on_ray(
            work, machines.address, HAS_IMAGE, tmp_path, At(20, interrupt), photos_per_piece=_PER_PIECE
        )
    before = len(arrived)
    assert 20 <= before < _PHOTOS
    embed_on_ray(work, machines.address, HAS_IMAGE, tmp_path, NoProgress())
    assert len(arrived) == len(set(arrived)) == _PHOTOS


def test_a_training_on_ray_gives_the_same_answers(
    machines: Machines, make_example: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A further network is embedded on the cluster when it is tried; losses are those without Ray."""
    monkeypatch.setattr("cloud.training.candidates.candidate_evaluation.is_worth_trying", lambda *_: True)
    further = NAME.replace("TINY", "UNMIRRORED")
    photos = [make_example(label, seed) for label in ("dawn", "dusk") for seed in range(8)]
    store = Store.open(tmp_path / "dataset")
    store.upsert(
        [Row(photo_id=one.photo_id, image=one.image, width=80, height=60, received_at_ms=1) for one in photos]
    )
    store.label([Label(photo_id=one.photo_id, label=one.label, by="ann", at_ms=1) for one in photos])
    cache = tmp_path / "cache"
    options = TrainingOptions(dataset=store.location, models="-", cache=str(cache), ray=machines.address)
    embed = partial(embed_for_training, options, progress=NoProgress())

    def losses(cache_dir: Path, told: Callable[[str], object] | None) -> dict[str, float | None]:
        found = evaluate_candidates(
            photos, [], backbone=NAME, also=(further,), cache_dir=cache_dir, embed=told
        ).held_out
        return {name: one.loss for name, one in found.items()}

    arrived = stored(monkeypatch)
    embed(NAME)
    assert {*arrived} == {bytes.fromhex(one.content_id) for one in photos}
    first = len(arrived)
    on_ray = losses(cache, embed)
    assert len(arrived) == 2 * first
    assert on_ray == pytest.approx(losses(tmp_path / "alone", None), abs=1e-4)


def test_a_worker_without_the_backbone(
    machines: Machines, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a worker lacks is reported in a sentence of ours."""
    (tmp_path / "only_here.py").write_text("from tests.cloud.tiny import TINY\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    work = Work(store.location, "only_here:TINY", mirrored=False, dim=False)
    with pytest.raises(PermanentError, match=r"a task of the Ray cluster failed: .*only_here"):
        embed_on_ray(work, machines.address, HAS_IMAGE, tmp_path, NoProgress())


def test_a_killed_node_costs_nothing(
    machines: Machines, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node is killed in the middle: each photo arrives, none twice, embedded as without Ray."""
    arrived, killed_at = stored(monkeypatch), At(2 * _PER_PIECE, machines.kill_one)
    work = Work(store.location, NAME, mirrored=True, dim=False)
    cache = tmp_path / "cache"
    photos = embed_on_ray(work, machines.address, HAS_IMAGE, cache, killed_at, photos_per_piece=_PER_PIECE)
    assert photos == killed_at.done == _PHOTOS
    assert len(arrived) == len(set(arrived)) == _PHOTOS
    assert {len(file.rows) for file in read_caches(cache)} == {_PHOTOS}
    pictures = [
        Example(str(row["photo_id"]), bytes(row["image"]), "", "human")  # type: ignore[arg-type]  # bytes
        for row in store.scan(["photo_id", "image"])
    ]
    embedded = Embedder.open(NAME, cache).embed(pictures, NoProgress())
    alone = Embedder.open(NAME, tmp_path / "alone").embed(pictures, NoProgress())
    np.testing.assert_allclose(embedded, alone, atol=1e-6)
