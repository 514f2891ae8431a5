"""Task of a worker for one piece: check and embed its photos as a training does, in separate caches."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import tensorflow as tf

from cloud.dataset.example import Example
from cloud.dataset.photo_caches import CacheFile, cached_pictures, read_caches
from cloud.dataset.store import Store
from cloud.labeling.embedder import FLIPPED, Embedder
from cloud.progress import NoProgress
from cloud.ray_jobs.pieces import Piece, read
from cloud.training.embeddings import embeddings, embeddings_file
from cloud.training.photo_check import PhotoChecker, checks_file
from schemas.class_names import NEITHER
from schemas.codec import content_id

_COLUMNS = ("image", "human_label", "split")


class Work(NamedTuple):
    """What is done with each photo.

    Attributes:
        dataset: folder or URL of the table, the same for all workers.
        backbone: name of a backbone with pretrained weights.
        mirrored: embed mirror images too, where the backbone is for photos that have one.
        dim: embed dimmed copies too, of photos that a person labelled.
    """

    dataset: str
    backbone: str
    mirrored: bool
    dim: bool


class Known(NamedTuple):
    """Content ids of the photos that the caches have; 16 bytes each.

    Attributes:
        whole: checked and embedded, or checked and found unusable.
        dim: embedded dimmed.
    """

    whole: frozenset[bytes]
    dim: frozenset[bytes]


def cache_files(work: Work) -> dict[str, str]:
    """Return the tables of the caches that a work fills, by the path of the file within its folder."""
    one = _embedder(work.backbone)
    name = embeddings_file(one.backbone, one.network)
    files = {checks_file(one.backbone): "photo", name: "embedding"}
    if work.mirrored and one.flipped is not None:
        files[f"{FLIPPED}/{name}"] = "embedding"
    if work.dim:
        files[embeddings_file(one.backbone, one.network, dim=True)] = "embedding"
    return files


def known_photos(work: Work, cache_dir: Path) -> Known:
    """Return what the caches have already.

    Raises:
        sqlite3.Error: A cache is damaged or locked.
    """
    files = _keys(cache_files(work), cache_dir)
    one = _embedder(work.backbone)
    checks = checks_file(one.backbone)
    dimmed = files.pop(embeddings_file(one.backbone, one.network, dim=True), set())
    unusable = cached_pictures(cache_dir / checks, "photo", "reason IS NOT NULL")
    return Known(frozenset(set.intersection(*files.values()) | unusable), frozenset(dimmed | unusable))


def embed_piece(work: Work, piece: Piece, known: Known) -> list[CacheFile]:
    """Check and embed the photos of a piece that are not known, and return the caches' new rows.

    Raises:
        PermanentError: The dataset or the backbone does not exist here.
        TransientError: The dataset cannot be read now.
    """
    wanted, dim = list[Example](), list[Example]()
    for photo_id, row in read(Store.open(work.dataset, create=False), piece, _COLUMNS).items():
        image = row["image"]
        if not isinstance(image, bytes) or not image:  # taken out of the dataset since
            continue
        label = row["human_label"]
        photo = Example(photo_id, image, "" if label is None else str(label), "human")
        key = bytes.fromhex(content_id(image))
        dims = work.dim and label not in {None, NEITHER} and row["split"] != "gold" and key not in known.dim
        if key not in known.whole or dims:
            wanted.append(photo)
            dim += [photo] if dims else []
    if not wanted:
        return []
    one, progress = _embedder(work.backbone), NoProgress()
    with TemporaryDirectory(prefix="gleaner-embed-") as name:
        folder = Path(name)
        # The functions of a training, so that the rows are those that it would write.
        usable, _ = PhotoChecker(one.backbone, folder).decodable(wanted, progress)
        ids = {photo.photo_id for photo in usable}
        dim = [photo for photo in dim if photo.photo_id in ids]
        if usable:
            embeddings(usable, one.backbone, one.network, folder, progress)
        if usable and work.mirrored and one.flipped is not None:
            embeddings(usable, one.backbone, one.flipped, folder / FLIPPED, progress)
        if dim:
            embeddings(dim, one.backbone, one.network, folder, progress, dim=True)
        return read_caches(folder)


def use_one_core() -> None:
    """Let TensorFlow use one core, which Ray gives to each task. Call it before any other use of it."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


@cache
def _embedder(name: str) -> Embedder:
    """Build a network once per process: it takes seconds. Its folder of caches is not used."""
    return Embedder.open(name, Path())


def _keys(files: Mapping[str, str], cache_dir: Path) -> dict[str, set[bytes]]:
    return {path: cached_pictures(cache_dir / path, table) for path, table in files.items()}
