"""Embed photos on Ray clusters of one core per node, and without Ray: photos per second, and equal answers.

    python -m bench.ray_embedding --nodes 1 2 --photos 384
    python -m bench.ray_embedding --nodes 3 --kill --photos 100000 --side 64 --backbone tests.cloud.tiny:TINY

Needs the extra `ray`. From the first results to the last: a worker loads TensorFlow and the network first.
`--folder DIR` keeps dataset and caches, so that a run that was interrupted goes on. `--kill` kills a node
when half of the photos are done. Afterwards it measures what a command does with all of them on its machine:
near-duplicates, and the order for review.
"""

import argparse
import contextlib
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from ray.cluster_utils import Cluster

from bench import procfs
from bench.photos import pictures
from cloud.dataset.example import Example
from cloud.dataset.store import HAS_IMAGE, Row, Store
from cloud.labeling.review_queue import listed_for_review
from cloud.modeling.load_tensorflow import load_tensorflow
from cloud.progress import NoProgress, Progress
from cloud.ray_jobs.cluster import embed_on_ray
from cloud.ray_jobs.pieces import PHOTOS_PER_PIECE
from schemas.codec import content_id

Vectors: TypeAlias = NDArray[np.floating]
_SMALL_JOB, _PER_PIECE = 4096, 32
_ROWS_PER_COMMIT = 8192
_DIMENSIONS = 96
"""Of the embeddings that the edges of the rows sent, by which the order for review covers them."""
_LISTED = 100
_NODE = {"num_cpus": 1, "object_store_memory": 80 * 1024 * 1024}


class Complete:
    """Progress that refuses that anything is left to compute."""

    def start(self, step: str, total: int) -> None:
        """Fail: the caches lack something."""
        raise AssertionError(f"{step}: {total} photos were missing in the cache")

    def advance(self, count: int = 1) -> None:
        """Ignore it: `start` has failed before."""


class Steady:
    """Progress that measures from the end of the first pieces, one per worker, to the end of the last.

    Args:
        workers: How many.
        act: Called once when half of the photos are done.
    """

    def __init__(self, workers: int, act: Callable[[], None] | None = None) -> None:
        self._first = workers
        self._act = act
        self._started: float | None = None
        self._photos = 0
        self._total = 0

    def start(self, step: str, total: int) -> None:  # noqa: ARG002  # a protocol
        """Keep the number of photos."""
        self._total = total

    def advance(self, count: int = 1) -> None:
        """Count."""
        act = self._act
        if act is not None and self._photos > self._total / 2:
            self._act = None
            act()
        self._first -= 1
        if self._first > 0:
            return
        if self._started is None:
            self._started = time.perf_counter()
        else:
            self._photos += count

    def line(self, of: str) -> str:
        """Return what was measured."""
        assert self._started is not None, "there are more pieces than workers"
        return f"{of}: {self._photos / (time.perf_counter() - self._started):.1f} photos/s"


def _fill(dataset: Path, photos: int, size_px: tuple[int, int]) -> Store:
    store, (width, height) = Store.open(dataset), size_px
    for start in range(store.count(), photos, _ROWS_PER_COMMIT):
        count = min(_ROWS_PER_COMMIT, photos - start)
        images = pictures(count, size_px=size_px, grain_px=min(20, width // 8), seed=str(start))
        draw = random.Random(start)  # noqa: S311  # a bench
        store.upsert(
            [
                Row(
                    photo_id=content_id(image),
                    image=image,
                    width=width,
                    height=height,
                    received_at_ms=1,
                    node=f"edge-{number % 50}",
                    device=f"pi-{number % 500}",
                    lane="hard",
                    dhash=f"{draw.getrandbits(64):016x}",
                    entropy=draw.random(),
                    embedding=np.array([draw.gauss(0, 1) for _ in range(_DIMENSIONS)], np.float32).tobytes(),
                )
                for number, image in enumerate(images)
            ]
        )
    return store


@contextlib.contextmanager
def _measured(name: str) -> Iterator[None]:
    """Print the seconds and the processor seconds of a step of this process."""
    began, cpu = time.perf_counter(), time.process_time()
    yield
    print(
        f"{name}: {time.perf_counter() - began:.1f} s, {time.process_time() - cpu:.1f} s of CPU, "
        f"{procfs.resident_bytes(os.getpid()) / 1e6:.0f} MB now",
        flush=True,
    )


def _photos(store: Store) -> list[Example]:
    return [
        Example(str(row["photo_id"]), row["image"], "", "human")  # type: ignore[arg-type]  # bytes
        for row in store.scan(["photo_id", "image"])
    ]


def _embed(photos: Sequence[Example], backbone: str, cache: Path, progress: Progress) -> Vectors:
    """Check and embed photos on this machine, as far as the cache lacks them."""
    from cloud.labeling.embedder import Embedder  # noqa: PLC0415  # TensorFlow is loaded by now

    embedder = Embedder.open(backbone, cache)
    return embedder.embed(embedder.decodable(photos, progress), progress)


def _without_ray(photos: Sequence[Example], backbone: str, cache: Path) -> Vectors:
    progress = Steady(1)
    progress.advance(0)  # the clock starts here: the check and both views of each photo count, as on Ray
    embedded = _embed(photos, backbone, cache, NoProgress())
    progress.advance(len(photos))
    print(progress.line("without Ray, on all cores"), flush=True)
    return embedded


def _on_ray(store: Store, arguments: argparse.Namespace, nodes: int, cache: Path) -> None:
    """Embed all photos on a cluster of its own, and print what that took."""
    from cloud.ray_jobs.task import Work  # noqa: PLC0415  # as above

    cluster = Cluster(initialize_head=True, head_node_args={**_NODE, "include_dashboard": False})
    try:
        others = [cluster.add_node(**_NODE) for _ in range(nodes - 1)]
        killed_s = 0.0

        def kill() -> None:
            nonlocal killed_s
            before = procfs.cpu_s(os.getpid())
            cluster.remove_node(others.pop(), allow_graceful=False)
            killed_s = max(0.0, before - procfs.cpu_s(os.getpid()))
            print("killed a node", flush=True)

        progress = Steady(nodes, kill if arguments.kill else None)
        work = Work(store.location, arguments.backbone, mirrored=True, dim=False)
        per_piece = _PER_PIECE if arguments.photos <= _SMALL_JOB else PHOTOS_PER_PIECE
        own, began = time.process_time(), time.perf_counter()
        photos = embed_on_ray(work, cluster.address, HAS_IMAGE, cache, progress, photos_per_piece=per_piece)
        own, total = time.process_time() - own, procfs.cpu_s(os.getpid()) + killed_s
        print(progress.line(f"{nodes} nodes of one core"))
        print(
            f"{photos} photos in {time.perf_counter() - began:.0f} s; {own:.0f} s of CPU of the command, "
            f"{total:.0f} s with the cluster and what came before",
            flush=True,
        )
    finally:
        cluster.shutdown()


def _read_all(store: Store, photos: Sequence[Example], backbone: str, cache: Path) -> None:
    """Do with all photos what a command does with them on its own machine, once they are in the cache."""
    from cloud.labeling.embedder import Embedder  # noqa: PLC0415  # as above

    with _measured("read checks and embeddings from the cache"):
        _embed(photos, backbone, cache, Complete())
    with _measured("near-duplicates, with reading their fingerprints"):
        groups = Embedder.open(backbone, cache).groups(photos, NoProgress())
    print(f"{len(photos)} photos, {len(np.unique(groups))} groups")
    with _measured(f"order for review, the first {_LISTED}"):
        listed = listed_for_review(store, _LISTED)
    print(f"{len(listed)} listed, {sum(photo.reason == 'coverage' for photo in listed)} by coverage")


def _run(arguments: argparse.Namespace, folder: Path) -> None:
    size_px = (640, 480) if arguments.side is None else (arguments.side, arguments.side)
    with _measured("dataset"):
        store = _fill(folder / "dataset.lance", arguments.photos, size_px)
    photos = _photos(store)
    some = photos[: arguments.alone or None]
    for repeat in range(arguments.repeats):
        alone = _without_ray(some, arguments.backbone, folder / f"{repeat}")
        for nodes in arguments.nodes:
            cache = folder / f"{repeat}-{nodes}"
            _on_ray(store, arguments, nodes, cache)
            on_ray = _embed(some, arguments.backbone, cache, Complete())
            print(f"largest difference of {len(some)} photos {np.abs(on_ray - alone).max():.1e}", flush=True)
            _read_all(store, photos, arguments.backbone, cache)


def main() -> None:
    """Measure, and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--kill", action="store_true", help="kill a node, not the first, in the middle")
    parser.add_argument("--photos", type=int, default=384)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--side", type=int, help="square photos with this side in pixels (640 x 480)")
    parser.add_argument("--backbone", default="efficientnet-lite0")
    parser.add_argument("--alone", type=int, default=0, help="embed so many without Ray (all)")
    parser.add_argument("--folder", type=Path, help="keep dataset and caches here, and go on with them")
    arguments = parser.parse_args()
    if arguments.kill and min(arguments.nodes) == 1:
        parser.error("--kill: needs --nodes of two or more")
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)
    load_tensorflow()
    with tempfile.TemporaryDirectory() as name:
        folder = (arguments.folder or Path(name)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        _run(arguments, folder)


if __name__ == "__main__":
    main()
