"""Which photos the database knows: those that were answered, and those that are suspected."""

import sqlite3
from typing import NamedTuple

from edge.inference import attempts
from edge.inference.answers import result_log
from edge.inference.answers.recorded_keys import RecordedKeys
from edge.scheduling.in_flight import PhotoKey

_WRITES_PER_SUSPECT = attempts.MAX_ATTEMPTS + 2  # as one of a batch, each attempt alone, and their end


class _Keys(NamedTuple):
    """Keys in two tables of the database."""

    answered: RecordedKeys
    suspected: RecordedKeys


class KnownPhotos:
    """Photos that may have a row in the database; a photo that is not among them certainly has none.

    So a new photo, as nearly all are, is classified without a look-up on the disk.

    Args:
        results_kept: Results that the database keeps.
    """

    def __init__(self, results_kept: int) -> None:
        self._results_kept = results_kept
        self._keys = self._none()

    def read(self, connection: sqlite3.Connection) -> _Keys:
        """Return the keys that are in the database, for `start`."""
        keys = self._none()
        keys.answered.add(result_log.keys(connection))
        keys.suspected.add(attempts.keys(connection))
        return keys

    def start(self, keys: _Keys) -> None:
        """Begin with what `read` returned; call once, before the first photo."""
        self._keys = keys

    def __contains__(self, key: PhotoKey) -> bool:
        return key in self._keys.answered or key in self._keys.suspected

    def add_answered(self, keys: list[PhotoKey]) -> None:
        """Add photos whose results were recorded."""
        self._keys.answered.add(keys)

    def add_suspected(self, key: PhotoKey) -> None:
        """Add a photo whose attempts were recorded."""
        self._keys.suspected.add([key])

    def _none(self) -> _Keys:
        return _Keys(RecordedKeys(self._results_kept), RecordedKeys(_WRITES_PER_SUSPECT * attempts.MAX_ROWS))
