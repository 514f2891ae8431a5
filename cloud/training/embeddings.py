"""Embeddings of photos, cached on disk for frozen backbones."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from cloud.dataset.example import Example, TrainingError
from cloud.dataset.photo_caches import open_cache, stored_vector
from cloud.modeling.backbones import Backbone, preprocess, weights_digest
from cloud.progress import Progress
from cloud.training.distributed import Team, alone
from schemas.pixels import DECODING

BATCH_PHOTOS = 32
_Graph: TypeAlias = Callable[[tf.Tensor], tf.Tensor]
PREPROCESSING = DECODING
"""Version of `backbones.preprocess`, raised when its output changes; part of the cache file's name."""


def embeddings(
    examples: Sequence[Example],
    backbone: Backbone,
    network: keras.Model,
    cache_dir: Path,
    progress: Progress,
    *,
    dim: bool = False,
    team: Team | None = None,
) -> NDArray[np.float32]:
    """Return the embeddings of photos, from the cache where it has them.

    The cache is one SQLite file per backbone and weights digest, keyed by the photo's content. An interrupted
    run continues after its last batch. A file grows by 4 D + 40 bytes per distinct photo (about 5 kB with
    efficientnet-lite0) and is not pruned; it can be deleted at any time.

    Args:
        examples: the photos.
        backbone: defines the preprocessing.
        network: the backbone as built, with the weights that are exported.
        cache_dir: created if missing; workers may use different ones.
        progress: advances by photos that have to be computed.
        dim: dim each photo first, see `dimmed`; cached in another file.
        team: workers that share the work; by default this one alone.

    Returns:
        float32 `[len(examples), D]`, in the order of the examples.

    Raises:
        TrainingError: a photo cannot be decoded.
    """
    cache_dir.mkdir(parents=True, exist_ok=True)
    path = cache_dir / embeddings_file(backbone, network, dim=dim)
    # By content, not by photo id: a photo that is imported again gets another id.
    keys = [bytes.fromhex(example.content_id) for example in examples]
    opened, known = open_cache(path, "embedding", lambda cache: _read(cache, keys, backbone.embedding_dim))
    with closing(opened) as cache:
        wanted = _missing_anywhere(keys, known, team or alone())
        missing = list({k: e for k, e in zip(keys, examples, strict=True) if k in wanted}.items())
        if missing:
            photos = [example for _, example in missing]
            progress.start("embed dimmed photos" if dim else "embed photos", len(photos))
            run = _kept_graph(backbone, network, dim)
            for start, vectors in _batches(photos, backbone, run, team or alone()):
                batch = dict(zip([key for key, _ in missing[start:]], vectors, strict=False))
                known.update(batch)
                with cache:  # a commit per batch: embedding thousands of photos takes minutes
                    rows = [(key, vector.tobytes()) for key, vector in batch.items()]
                    # Replace: damaged rows, and those that another process added in between.
                    cache.executemany("INSERT OR REPLACE INTO embedding VALUES (?, ?)", rows)
                progress.advance(len(batch))
    return np.stack([known[key] for key in keys])


def embeddings_file(backbone: Backbone, network: keras.Model, *, dim: bool = False) -> str:
    """Return the name of the cache that `embeddings` uses."""
    # The digest of the weights is part of the name: another state of the backbone has other embeddings.
    kind = "-dim" if dim else ""
    return f"{backbone.name}-{PREPROCESSING}-{weights_digest(network)}{kind}.sqlite3"


def embed(
    examples: Sequence[Example],
    backbone: Backbone,
    network: keras.Model,
    progress: Progress,
    team: Team | None = None,
) -> NDArray[np.float32]:
    """Return the embeddings of photos by a network that was just trained, without a cache.

    Args:
        examples: the photos, at least one.
        backbone: defines the preprocessing.
        network: the trained network.
        progress: advances by photos.
        team: workers that share the work; by default this one alone.

    Returns:
        float32 `[len(examples), D]`.

    Raises:
        TrainingError: a photo cannot be decoded.
    """
    progress.start("embed photos", len(examples))
    parts = []
    for _, vectors in _batches(examples, backbone, _graph(backbone, network), team or alone()):
        parts.append(vectors)
        progress.advance(len(vectors))
    return np.concatenate(parts)


def dimmed(images: tf.Tensor, backbone: Backbone) -> tf.Tensor:
    """Halve the brightness and reduce the colour to 40 %, as at dusk or with an ageing camera.

    Args:
        images: float32 `[N, H, W, 3]`, normalised for the backbone.
        backbone: defines the normalisation.
    """
    # In pixel values, where brightness and grey have their meaning.
    light = (images * backbone.scale + backbone.offset) * 0.5
    grey = tf.reduce_mean(light, axis=-1, keepdims=True)
    return (0.4 * light + 0.6 * grey - backbone.offset) / backbone.scale


def undecodable(error: Exception, examples: Sequence[Example], backbone: Backbone) -> TrainingError:
    """Return the error for a batch that failed, which names the photo that cannot be decoded.

    Args:
        error: what the batch raised.
        examples: the batch.
        backbone: defines the preprocessing.
    """
    # TensorFlow does not report which photo of a batch failed: try them one by one.
    for example in examples:
        try:
            preprocess(backbone, tf.constant([example.image]))
        except tf.errors.InvalidArgumentError as reason:
            size_bytes = len(example.image)
            return TrainingError(
                f"cannot decode photo {example.photo_id} ({size_bytes} bytes): {decoder_reason(reason)}",
                hint="remove it from the dataset, or store it again as JPEG or PNG",
            )
    return TrainingError(
        f"preprocessing failed for {len(examples)} photos, each of which can be decoded: {error}"
    )


def decoder_reason(error: tf.errors.InvalidArgumentError) -> str:
    """Return the decoder's sentence, without TensorFlow's traceback before and the operation after it."""
    lines = [line.strip() for line in str(error.message).splitlines()]
    last_sentence = next(line for line in reversed(lines) if line and not line.startswith("[["))
    return last_sentence.rpartition("}} ")[2].partition(" [Op:")[0]


def _read(cache: sqlite3.Connection, keys: Sequence[bytes], dim: int) -> dict[bytes, NDArray[np.float32]]:
    """Look up embeddings; a damaged row counts as missing."""
    found = {}
    for key in keys:
        row = cache.execute("SELECT vector FROM embedding WHERE photo = ?", (key,)).fetchone()
        found[key] = None if row is None else stored_vector(row[0])
    return {key: one for key, one in found.items() if one is not None and len(one) == dim}


def _missing_anywhere(keys: Sequence[bytes], known: Mapping[bytes, object], team: Team) -> set[bytes]:
    """Return the keys that at least one worker lacks: each batch needs all workers."""
    missing = np.array([[key not in known for key in keys]], np.int32)
    absent: list[int] = team.gather(missing).max(axis=0).tolist()
    return {key for key, wanted in zip(keys, absent, strict=True) if wanted}


def _graph(backbone: Backbone, network: keras.Model, dim: bool = False) -> _Graph:  # noqa: FBT001, FBT002  # as below
    """Return the function from encoded photos to embeddings; its first call traces it."""

    def embed_batch(encoded: tf.Tensor) -> tf.Tensor:
        images = preprocess(backbone, encoded)
        return network(dimmed(images, backbone) if dim else images, training=False)

    # One graph for batches of any size: without the signature, the last one would be traced again.
    graph: _Graph = tf.function(
        embed_batch, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False
    )
    return graph


@lru_cache(maxsize=3)
def _kept_graph(backbone: Backbone, network: keras.Model, dim: bool) -> _Graph:  # noqa: FBT001  # a key of the cache
    """Return the graph of a network, kept for calls with few photos each, as the tasks of a Ray worker are.

    Tracing takes as long as a hundred photos. Three are kept, with their networks: photos, mirror images and
    dimmed copies.
    """
    return _graph(backbone, network, dim)


def _batches(
    examples: Sequence[Example], backbone: Backbone, run: _Graph, team: Team
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield the start of each batch and its embeddings, `[n, D]`."""
    size = BATCH_PHOTOS * team.count
    for start in range(0, len(examples), size):
        of_all_workers = examples[start : start + size]
        batch = of_all_workers[team.part(len(of_all_workers))]
        try:
            vectors = run(tf.constant([example.image for example in batch], tf.string)).numpy()
        except tf.errors.InvalidArgumentError as error:
            raise undecodable(error, batch, backbone) from error
        yield start, team.gather(vectors)
