"""Correct labels, and take photos and dead letters out for good; all functions block."""

from pathlib import Path
from typing import NamedTuple

from bus.diagnosis.sentence import Sentence
from bus.mqtt.presence import now_ms
from cloud.dataset.change_log import ChangeLog
from cloud.dataset.curation import Selection, forget_photos, set_label
from cloud.dataset.dead_letters import DeadLetter, DeadLetterTable
from cloud.dataset.labels import Label
from cloud.dataset.photo_caches import purge_caches
from cloud.dataset.store import Store
from schemas.class_names import class_name
from schemas.errors import PermanentError

MAX_LETTERS = 60
"""Most dead letters on the page; there are rarely more, and each has its payload."""


class Letter(NamedTuple):
    """A dead letter without its payload."""

    key: str
    node: str
    reason: str
    received_at_ms: int
    size_bytes: int


def relabel(store: Store, photo_id: str, label: str, by: str) -> str | None:
    """Replace the human label of an imported photo; return the one before.

    Raises:
        PermanentError: The label is not a class name, or the photo was removed.
        TransientError: The dataset cannot be written now.
    """
    if photo_id not in store.find([photo_id], ["photo_id"]):
        raise PermanentError(Sentence("photo %(photo)s: not in the dataset", photo=photo_id))
    given = Label(photo_id=photo_id, label=class_name(label), by=by, at_ms=now_ms())
    return set_label(store, ChangeLog.open(store.table.url), given, "relabel")


def forget(store: Store, photo_id: str, by: str, cache_dir: Path) -> None:
    """Take a photo out for good, as `gleaner cloud forget` does.

    Raises:
        PermanentError: The photo does not exist.
        TransientError: The dataset cannot be written now.
    """
    done = forget_photos(store, ChangeLog.open(store.table.url), Selection(photos=[photo_id]), by)
    letters = _letters(store)
    if letters is not None:
        letters.remove(done.photo_ids)
    purge_caches(cache_dir, done.content_ids)


def newest_letters(store: Store) -> list[Letter]:
    """Return the newest dead letters, at most `MAX_LETTERS`, newest first.

    Raises:
        TransientError: The table cannot be read now.
    """
    letters = _letters(store)
    if letters is None:
        return []
    return [_summary(one) for one in letters.newest(MAX_LETTERS)]


def discard_letter(store: Store, key: str) -> bool:
    """Remove a dead letter for good; return whether there was one.

    Raises:
        TransientError: The table cannot be written now.
    """
    letters = _letters(store)
    return letters is not None and letters.remove([key]) > 0


def _summary(letter: DeadLetter) -> Letter:
    return Letter(letter.key, letter.node, letter.reason, letter.received_at_ms, len(letter.payload))


def _letters(store: Store) -> DeadLetterTable | None:
    try:
        return DeadLetterTable.open(store.table.url, create=False)
    except PermanentError:  # it does not exist
        return None
