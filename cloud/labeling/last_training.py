"""What the dataset had when the newest version was trained."""

from cloud.dataset.store import MODEL_TAG, Store
from cloud.evaluation.unseen import readable_version


def ids_at_last_training(store: Store, where: str) -> frozenset[str]:
    """Return the ids of the photos that fulfilled a condition in SQL then; empty if unknown."""
    trained = [version for tag, version in store.tags().items() if tag.startswith(MODEL_TAG)]
    known = readable_version(store, max(trained, default=None))
    if known is None:  # nothing was trained, or what was forgotten took the tags with it
        return frozenset()
    return frozenset(str(row["photo_id"]) for row in store.scan(["photo_id"], where=where, version=known))
