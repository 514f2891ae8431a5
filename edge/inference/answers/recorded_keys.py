"""Know in memory which photos certainly have no row in a table: only the others are looked up on the disk."""

from collections.abc import Iterable

from edge.scheduling.in_flight import PhotoKey

_BITS_PER_KEY = 16
_MOST_BITS = 1 << 27
_BITS_PER_BYTE = 8


class RecordedKeys:
    """The keys of the newest rows of a table: no false negatives, few false positives.

    A Bloom filter with one hash function in two generations. When the younger one has as many keys as the
    table keeps rows, all rows of the older one are deleted, and it is replaced.

    Bounded: 4 to 8 bytes for each key that is kept, 32 MB at most. Up to an eighth of the keys without a row
    are false positives, more if `kept` is above 8 million.

    Args:
        kept: Rows that the table keeps: after as many newer ones a row is deleted.
    """

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._bits = min(_MOST_BITS, 1 << (_BITS_PER_KEY * kept - 1).bit_length())
        self._older = self._generation()
        self._younger = self._generation()
        self._count = 0

    def add(self, keys: Iterable[PhotoKey]) -> None:
        """Add the keys of new rows, the oldest first."""
        for key in keys:
            if self._count == self._kept:
                self._older, self._younger, self._count = self._younger, self._generation(), 0
            byte, bit = self._place(key)
            self._younger[byte] |= bit
            self._count += 1

    def __contains__(self, key: PhotoKey) -> bool:
        """Return False if the photo certainly has no row."""
        byte, bit = self._place(key)
        return bool((self._younger[byte] | self._older[byte]) & bit)

    def _generation(self) -> bytearray:
        return bytearray(max(1, self._bits // _BITS_PER_BYTE))

    def _place(self, key: PhotoKey) -> tuple[int, int]:
        # Python's hash of strings has a random seed, so that no sender can choose keys that collide.
        at = hash(key) % self._bits
        return at // _BITS_PER_BYTE, 1 << at % _BITS_PER_BYTE
