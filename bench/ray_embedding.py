"""Embed photos on Ray clusters of one core per node, and without Ray: photos per second, and equal answers.

    python -m bench.ray_embedding --nodes 1 2 --photos 384
    python -m bench.ray_embedding --nodes 2 --photos 100000 --side 64 --backbone tests.cloud.tiny:TINY

Needs the extra `ray`. From the first results to the last: a worker loads TensorFlow and the network first.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from ray.cluster_utils import Cluster

from bench.photos import pictures
from cloud.dataset.example import Example
from cloud.dataset.store import HAS_IMAGE, Row, Store
from cloud.modeling.load_tensorflow import load_tensorflow
from cloud.progress import NoProgress
from cloud.ray_jobs.cluster import embed_on_ray
from cloud.ray_jobs.pieces import PHOTOS_PER_PIECE
from schemas.codec import content_id

_SMALL_JOB, _PER_PIECE = 4096, 32
_ROWS_PER_COMMIT = 8192
_NODE = {"num_cpus": 1, "object_store_memory": 80 * 1024 * 1024}


class Steady:
    """Progress that measures from the end of the first pieces, one per worker, to the end of the last."""

    def __init__(self, workers: int) -> None:
        self._first = workers
        self._started: float | None = None
        self._photos = 0

    def start(self, step: str, total: int) -> None:
        """Ignore the step."""

    def advance(self, count: int = 1) -> None:
        """Count."""
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
    for start in range(0, photos, _ROWS_PER_COMMIT):
        count = min(_ROWS_PER_COMMIT, photos - start)
        images = pictures(count, size_px=size_px, grain_px=min(20, width // 8), seed=str(start))
        store.upsert(
            [
                Row(photo_id=content_id(image), image=image, width=width, height=height, received_at_ms=1)
                for image in images
            ]
        )
    return store


def _without_ray(store: Store, backbone: str, cache: Path) -> tuple[str, NDArray[np.floating]]:
    from cloud.labeling.embedder import Embedder  # noqa: PLC0415  # TensorFlow is loaded by now

    photos = [
        Example(str(row["photo_id"]), row["image"], "", "human")  # type: ignore[arg-type]  # bytes
        for row in store.scan(["photo_id", "image"])
    ]
    embedder, progress = Embedder.open(backbone, cache), Steady(1)
    progress.advance(0)  # the clock starts here: the check and both views of each photo count, as on Ray
    usable = embedder.decodable(photos, NoProgress())
    embedded = embedder.embed(usable, NoProgress())
    progress.advance(len(photos))
    return progress.line("without Ray, on all cores"), embedded


def _on_ray(store: Store, backbone: str, nodes: int, cache: Path, photos: int) -> str:
    from cloud.ray_jobs.task import Work  # noqa: PLC0415  # as above

    cluster = Cluster(initialize_head=True, head_node_args={**_NODE, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            cluster.add_node(**_NODE)
        progress = Steady(nodes)
        work = Work(store.location, backbone, mirrored=True, dim=False)
        per_piece = _PER_PIECE if photos <= _SMALL_JOB else PHOTOS_PER_PIECE
        embed_on_ray(work, cluster.address, HAS_IMAGE, cache, progress, photos_per_piece=per_piece)
        return progress.line(f"{nodes} nodes of one core")
    finally:
        cluster.shutdown()


def main() -> None:
    """Measure, and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--photos", type=int, default=384)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--side", type=int, help="square photos with this side in pixels (640 x 480)")
    parser.add_argument("--backbone", default="efficientnet-lite0")
    arguments = parser.parse_args()
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)
    load_tensorflow()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size_px = (640, 480) if arguments.side is None else (arguments.side, arguments.side)
        store = _fill(folder / "dataset.lance", arguments.photos, size_px)
        for repeat in range(arguments.repeats):
            line, alone = _without_ray(store, arguments.backbone, folder / f"{repeat}")
            print(line, flush=True)
            for nodes in arguments.nodes:
                cache = folder / f"{repeat}-{nodes}"
                print(_on_ray(store, arguments.backbone, nodes, cache, arguments.photos), flush=True)
                began = time.perf_counter()
                _, on_ray = _without_ray(store, arguments.backbone, cache)  # finds everything
                print(
                    f"largest difference {np.abs(on_ray - alone).max():.1e}, "
                    f"read back in {time.perf_counter() - began:.0f} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
