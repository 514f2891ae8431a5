"""Follow the classes of a version through the renames and merges of the dataset since its training."""

import sys
from collections.abc import Iterable, Sequence

from msgspec import structs

from cloud.dataset.change_log import Change, ChangeLog
from cloud.dataset.store import Store
from cloud.registry.model_card import Card
from schemas.errors import PermanentError

_ARROW = " -> "


def with_current_names(card: Card, store: Store) -> Card:
    """Return a version's card with the names that its classes have in the dataset now.

    Two classes that were merged have one name, twice.

    Raises:
        TransientError: The change log cannot be read now.
    """
    try:
        log = ChangeLog.open(store.location, create=False)
    except PermanentError:  # nobody has changed anything
        return card
    # From the beginning of the training: a change during it is in no label that it read.
    began_ms = card.created_at_ms - int(card.training_s * 1000)
    changes = [change for change in log.newest(sys.maxsize) if change.at_ms >= began_ms]
    return structs.replace(card, classes=current_names(card.classes, changes))


def current_names(classes: Sequence[str], changes: Iterable[Change]) -> list[str]:
    """Return what classes are called after changes.

    Args:
        classes: Names before the changes.
        changes: Newest first, as the log has them.
    """
    now = list(classes)
    for change in reversed(list(changes)):
        if change.action in {"rename-class", "merge-class"}:
            before, _, into = change.detail.rpartition(_ARROW)
            now = [into if name == before else name for name in now]
    return now
