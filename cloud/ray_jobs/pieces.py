"""Split the photos of a dataset into pieces of work, and read those of one piece."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from cloud.dataset.store import Store

PHOTOS_PER_PIECE = 128
"""About four seconds of one core with EfficientNet-Lite0: what each core of a lost machine may have done."""


class Piece(NamedTuple):
    """Photos that one task reads.

    Attributes:
        fragments: numbers of the table's fragments that held them when the work was planned.
        photo_ids: of the photos.
    """

    fragments: tuple[int, ...]
    photo_ids: tuple[str, ...]


def plan(
    store: Store, where: str, version: int | None = None, size: int = PHOTOS_PER_PIECE
) -> Iterator[Piece]:
    """Yield pieces that together have each photo of a condition once; reads no image.

    Args:
        store: The dataset.
        where: Condition in SQL.
        version: Of the dataset; None for the newest.
        size: Most photos in a piece.

    Raises:
        PermanentError: The version does not exist.
        TransientError: The table cannot be read now.
    """
    dataset = store.table.open_version(version)
    with store.table.reading(dataset):
        rows = dataset.scanner(columns=["photo_id"], filter=where, with_row_address=True).to_table()
    addresses = rows["_rowaddr"].to_numpy()
    order = np.argsort(addresses)
    # In the order of the table, so that a piece is in as few fragments as possible. The upper half of an
    # address is the fragment's number.
    ids, fragments = rows["photo_id"].take(order), addresses[order] >> np.uint64(32)
    for start in range(0, len(ids), size):
        held = np.unique(fragments[start : start + size]).tolist()
        yield Piece(tuple(held), tuple(ids.slice(start, size).to_pylist()))


def read(store: Store, piece: Piece, columns: Sequence[str]) -> dict[str, dict[str, object]]:
    """Read columns of a piece's photos from the newest version, by id; those taken out since are left out.

    Raises:
        TransientError: The table cannot be read now.
    """
    dataset = store.table.open_version()
    fragments = {one.fragment_id: one for one in dataset.get_fragments()}
    held = [fragments[number] for number in piece.fragments if number in fragments]
    found = store.table.read_rows(dataset, held, piece.photo_ids, list(columns))
    # A row that was changed or compacted meanwhile is in another fragment.
    moved = [photo_id for photo_id in piece.photo_ids if photo_id not in found]
    return found | (store.find(moved, columns) if moved else {})
