"""Photos with a person's label that a version cannot have been trained on."""

from cloud.dataset.store import HAS_HUMAN_CLASS, HAS_IMAGE, Store
from schemas.errors import PermanentError

_LABELLED = f"{HAS_IMAGE} AND {HAS_HUMAN_CLASS}"


def readable_version(store: Store, version: int | None) -> int | None:
    """Return a version of the dataset, None if it is unknown or the dataset no longer has it.

    Raises:
        TransientError: The dataset cannot be read now.
    """
    if version is None:
        return None
    try:
        store.count("FALSE", version)
    except PermanentError:  # the table was cleaned up or created again
        return None
    return version


def unseen_photos(
    store: Store, trained_at: int | None, created_at_ms: int, *, version: int | str | None = None
) -> frozenset[str]:
    """Return the ids of the labelled photos that a version cannot have been trained on.

    Args:
        store: The dataset.
        trained_at: Version of the dataset that it was trained from.
        created_at_ms: When it was trained, UTC. Counts only where that version of the dataset is gone: it is
            by the trainer's clock, and times of arrival are by the collector's.
        version: Number or tag of the dataset's version that is read; None for the newest.

    Raises:
        TransientError: The dataset cannot be read now.
    """
    known = readable_version(store, trained_at)
    where = f"{_LABELLED} AND received_at_ms > {created_at_ms}" if known is None else _LABELLED
    labelled = {str(row["photo_id"]) for row in store.scan(["photo_id"], where=where, version=version)}
    if known is not None:
        # All, not only those that people had labelled: a model may have labelled the others.
        labelled.difference_update(str(row["photo_id"]) for row in store.scan(["photo_id"], version=known))
    return frozenset(labelled)
