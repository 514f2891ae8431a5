"""Find the stored photos that look most like one, by their embeddings ("more like this").

A small form of each embedding, its largest principal components, is searched in memory; the best candidates
are compared by their whole embeddings. Nothing is kept on the disk, and so nothing of a forgotten photo
(docs/decisions/0077-similar-photos-in-memory.md).
"""

import threading
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cloud.dataset.store import HAS_IMAGE, Store
from cloud.modeling.kernels import is_usable, unit_length, usable
from schemas.errors import PermanentError

MAX_PHOTOS = 200_000
"""Most photos that are searched, the newest: 40 MB."""
_COMPONENTS = 96
_FITTED_ON = 768
"""Embeddings that the components are found from: the time grows with the square."""
_CANDIDATES_PER_RESULT = 8
_MAX_CANDIDATES = 512
_ROWS_PER_BATCH = 2048
# Not `embedding IS NOT NULL`: the condition alone would read every embedding.
_SAMPLES = f"{HAS_IMAGE} AND origin = 'sample'"

Vectors = NDArray[np.float32]


class Similar(NamedTuple):
    """A photo with its likeness: the cosine of the centred embeddings, 1 for equal ones."""

    photo_id: str
    likeness: float


@dataclass(slots=True)
class _Space:
    """The photos whose embeddings have one length; of the same length they are of the same backbone.

    Attributes:
        mean: of the embeddings that the components were fitted on, `[D]`.
        components: `[C, D]`.
        fitted_on: number of embeddings that the components were found from.
        ids: of the photos, oldest first.
        small: their projections at unit length, `[N, C]`, half precision.
    """

    mean: Vectors
    components: Vectors
    fitted_on: int
    ids: list[str] = field(default_factory=list)
    small: NDArray[np.float16] = field(default_factory=lambda: np.zeros((0, _COMPONENTS), np.float16))

    @classmethod
    def fitted(cls, some: Vectors) -> "_Space":
        """Find the components of at most `_FITTED_ON` embeddings, evenly chosen."""
        chosen = some[:: -(-len(some) // _FITTED_ON)]
        mean = chosen.mean(axis=0)
        _, _, components = np.linalg.svd(chosen - mean, full_matrices=False)
        return cls(mean, np.ascontiguousarray(components[:_COMPONENTS]), len(chosen))

    @property
    def is_outgrown(self) -> bool:
        """Whether there are far more photos than the components were found from."""
        return self.fitted_on < _FITTED_ON and len(self.ids) > 2 * self.fitted_on

    def project(self, vectors: Vectors) -> Vectors:
        """Return `[N, C]` at unit length."""
        return unit_length((vectors - self.mean) @ self.components.T)

    def add(self, ids: list[str], vectors: Vectors) -> None:
        """Add photos."""
        projected = self.project(vectors).astype(np.float16)
        self.small = projected if not self.ids else np.concatenate([self.small, projected])
        self.ids = self.ids + ids

    def keep(self, known: Collection[str]) -> None:
        """Drop photos that are no longer known, and the oldest beyond the bound."""
        places = [at for at, one in enumerate(self.ids) if one in known][-MAX_PHOTOS:]
        if len(places) < len(self.ids):
            self.ids, self.small = [self.ids[at] for at in places], self.small[places]

    def nearest(self, vector: Vectors, count: int) -> list[str]:
        """Return the ids of the nearest photos by their projections, in any order."""
        # In parts: the half-precision matrix is widened for the product.
        query = self.project(vector[None])[0]
        parts = [
            part.astype(np.float32) @ query
            for part in np.array_split(self.small, 1 + len(self.ids) // 20_000)
        ]
        likeness = np.concatenate(parts)
        best = np.argpartition(-likeness, min(count, len(likeness) - 1))[:count]
        return [self.ids[at] for at in best]


class SimilarPhotos:
    """Answers which photos look like one. All methods block, and are safe to call from several threads.

    Args:
        store: The dataset. Photos that are taken out of it are no longer found from the next search on.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._spaces: dict[int, _Space] = {}
        self._version = -1
        self._newest_ms = -1
        self._lock = threading.Lock()
        self.wanted = False
        """Whether somebody looks at photos, so that `refresh` is worth its time."""

    def __len__(self) -> int:
        """Return how many photos are searched."""
        return sum(len(space.ids) for space in self._spaces.values())

    def like(self, photo_id: str, limit: int) -> list[Similar]:
        """Return the photos that look most like one, most alike first, without the photo itself.

        Args:
            photo_id: Of a sample.
            limit: Maximum number; at most 64.

        Raises:
            PermanentError: There is no such photo, or it has no embedding: it was imported, or harvested by a
                model without one.
            TransientError: The dataset cannot be read now.
        """
        vector = self._vector(photo_id)
        with self._lock:
            self._refresh()
            space = self._spaces.get(len(vector))
            if space is None or not space.ids:
                return []
            count = min(_MAX_CANDIDATES, _CANDIDATES_PER_RESULT * min(limit, 64) + 1)
            candidates = [one for one in space.nearest(vector, count) if one != photo_id]
            mean = space.mean
        return self._compared(vector, mean, candidates)[:limit]

    def _vector(self, photo_id: str) -> Vectors:
        row = self._store.find([photo_id], ["embedding", "forgotten_at_ms"]).get(photo_id)
        if row is None or row["forgotten_at_ms"] is not None:
            raise PermanentError(f"photo {photo_id}: not in the dataset")
        vector = np.array(row["embedding"] or (), np.float32)
        if not is_usable(vector):
            raise PermanentError(f"photo {photo_id} has no embedding: only samples of edges can be compared")
        return vector

    def _compared(self, vector: Vectors, mean: Vectors, candidates: list[str]) -> list[Similar]:
        """Order candidates by their whole embeddings."""
        rows = self._store.find(candidates, ["embedding"])
        vectors = {one: np.array(row["embedding"] or (), np.float32) for one, row in rows.items()}
        found = [one for one in candidates if one in vectors and len(vectors[one]) == len(vector)]
        if not found:
            return []
        whole = unit_length(np.stack([vectors[one] for one in found]) - mean)
        likeness = whole @ unit_length((vector - mean)[None])[0]
        order = np.argsort(-likeness, kind="stable")
        return [Similar(found[at], float(likeness[at])) for at in order]

    def refresh(self) -> None:
        """Read the photos that came since the last search, so that the next one does not have to.

        Raises:
            TransientError: The dataset cannot be read now.
        """
        with self._lock:
            self._refresh()

    def _refresh(self) -> None:
        version = self._store.version
        if version == self._version:
            return
        self._read_newer()
        if any(space.is_outgrown for space in self._spaces.values()):
            self._spaces, self._newest_ms = {}, -1
            self._read_newer()
        arrived = {
            str(row["photo_id"]): int(str(row["received_at_ms"]))
            for row in self._store.scan(["photo_id", "received_at_ms"], where=_SAMPLES)
        }
        for space in self._spaces.values():
            space.keep(arrived.keys())
        self._newest_ms = max(arrived.values(), default=-1)
        self._version = version

    def _read_newer(self) -> None:
        """Add the photos that are not known yet."""
        known = {one for space in self._spaces.values() for one in space.ids}
        waiting: defaultdict[int, list[tuple[list[str], Vectors]]] = defaultdict(list)
        for ids, vectors in _batches(self._store, f"{_SAMPLES} AND received_at_ms >= {self._newest_ms}"):
            new = [at for at, one in enumerate(ids) if one not in known]
            if new:
                length = vectors.shape[1]
                waiting[length].append(([ids[at] for at in new], vectors[new]))
                # A batch may be a handful: components are found from several together.
                if length in self._spaces or sum(len(some) for some, _ in waiting[length]) >= _FITTED_ON:
                    self._add(waiting.pop(length))
        for parts in waiting.values():
            self._add(parts)

    def _add(self, parts: list[tuple[list[str], Vectors]]) -> None:
        vectors = np.concatenate([some for _, some in parts])
        length = vectors.shape[1]
        if length not in self._spaces:
            self._spaces[length] = _Space.fitted(vectors)
        self._spaces[length].add([one for ids, _ in parts for one in ids], vectors)


def _batches(store: Store, where: str) -> Iterator[tuple[list[str], Vectors]]:
    """Yield ids and usable embeddings `[n, D]` of photos, those of one length at a time."""
    scanner = store.table.open_version().scanner(
        columns=["photo_id", "embedding"], filter=where, batch_size=_ROWS_PER_BATCH, batch_readahead=2
    )
    with store.table.map_errors():
        for batch in scanner.to_batches():
            yield from _by_length(batch)


def _by_length(batch: pa.RecordBatch) -> Iterator[tuple[list[str], Vectors]]:
    # From Arrow's buffers and in whole matrices: as Python numbers, 100 000 embeddings would take minutes.
    ids, column = np.array(batch.column("photo_id").to_pylist(), object), batch.column("embedding")
    lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    values = column.flatten().to_numpy(zero_copy_only=False)
    for length in np.unique(lengths[lengths > 0]):
        places = np.flatnonzero(lengths == length)
        alone = len(places) * length == len(values)  # the usual case, which copies nothing
        whole = values if alone else values[np.repeat(lengths == length, lengths)]
        vectors = whole.reshape(-1, length)
        good = usable(vectors)
        if good.any():
            yield ids[places[good]].tolist(), vectors[good]
