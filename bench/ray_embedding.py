"""Embed photos on Ray clusters of one core per node, and without Ray: photos per second.

    python -m bench.ray_embedding --nodes 1 2 --photos 384

Needs the extra `ray`. From the first results to the last: a worker loads TensorFlow and the network first.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from ray.cluster_utils import Cluster

from bench.photos import pictures
from cloud.dataset.example import Example
from cloud.dataset.store import HAS_IMAGE, Row, Store
from cloud.modeling.load_tensorflow import load_tensorflow
from cloud.progress import NoProgress
from cloud.ray_jobs.cluster import embed_on_ray
from schemas.codec import content_id

_BACKBONE = "efficientnet-lite0"
_PER_PIECE = 32
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


def _fill(dataset: Path, photos: int) -> Store:
    store = Store.open(dataset)
    rows = [
        Row(photo_id=content_id(image), image=image, width=640, height=480, received_at_ms=1)
        for image in pictures(photos)
    ]
    store.upsert(rows)
    return store


def _without_ray(store: Store, cache: Path) -> str:
    from cloud.labeling.embedder import Embedder  # noqa: PLC0415  # TensorFlow is loaded by now

    photos = [
        Example(str(row["photo_id"]), row["image"], "", "human")  # type: ignore[arg-type]  # bytes
        for row in store.scan(["photo_id", "image"])
    ]
    embedder, progress = Embedder.open(_BACKBONE, cache), Steady(1)
    progress.advance(0)  # the clock starts here: the check and both views of each photo count, as on Ray
    usable = embedder.decodable(photos, NoProgress())
    embedder.embed(usable, NoProgress())
    progress.advance(len(photos))
    return progress.line("without Ray, on all cores")


def _on_ray(store: Store, nodes: int, cache: Path) -> str:
    from cloud.ray_jobs.task import Work  # noqa: PLC0415  # as above

    cluster = Cluster(initialize_head=True, head_node_args={**_NODE, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            cluster.add_node(**_NODE)
        progress = Steady(nodes)
        work = Work(store.location, _BACKBONE, mirrored=True, dim=False)
        embed_on_ray(work, cluster.address, HAS_IMAGE, cache, progress, photos_per_piece=_PER_PIECE)
        return progress.line(f"{nodes} nodes of one core")
    finally:
        cluster.shutdown()


def main() -> None:
    """Measure, and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--photos", type=int, default=384)
    parser.add_argument("--repeats", type=int, default=1)
    arguments = parser.parse_args()
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)
    load_tensorflow()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = _fill(folder / "dataset.lance", arguments.photos)
        for repeat in range(arguments.repeats):
            sys.stdout.write(f"{_without_ray(store, folder / f'{repeat}')}\n")
            for nodes in arguments.nodes:
                sys.stdout.write(f"{_on_ray(store, nodes, folder / f'{repeat}-{nodes}')}\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
