"""Read the orientation of EXIF data, and write EXIF data that has nothing else.

Source: JEITA CP-3451 (EXIF 2.3), section 4.6; TIFF 6.0, section 2.
"""

from typing import Literal

EXIF_HEADER = b"Exif\x00\x00"
UPRIGHT = 1

_BYTE_ORDERS: dict[bytes, Literal["little", "big"]] = {b"II": "little", b"MM": "big"}
_ORIENTATION = 0x0112
_SHORT = 3
_ENTRY_BYTES = 12
MAX_ENTRIES = 512
"""Entries of the directory that are read."""

_ORIENTATIONS = range(1, 9)


def read_orientation(tiff: bytes) -> int:
    """Return the orientation in EXIF data, 1 to 8; 1 if there is none or the data are malformed.

    Takes bounded time: the entries of the first directory alone are read.

    Args:
        tiff: EXIF data from the byte order mark on.
    """
    if tiff[:2] not in _BYTE_ORDERS:
        return UPRIGHT
    order = _BYTE_ORDERS[tiff[:2]]

    def number(at: int, size: int) -> int:
        return int.from_bytes(tiff[at : at + size], order)

    at = number(4, 4)
    count = min(number(at, 2), MAX_ENTRIES)
    for entry in range(at + 2, min(at + 2 + count * _ENTRY_BYTES, len(tiff)), _ENTRY_BYTES):
        if number(entry, 2) == _ORIENTATION:
            value = number(entry + 8, 2)
            is_valid = number(entry + 2, 2) == _SHORT and value in _ORIENTATIONS
            return value if is_valid and entry + _ENTRY_BYTES <= len(tiff) else UPRIGHT
    return UPRIGHT


def orientation_only(orientation: int) -> bytes:
    """Return EXIF data with an orientation alone, from the byte order mark on; 26 bytes."""
    entry = (
        _ORIENTATION.to_bytes(2) + _SHORT.to_bytes(2) + (1).to_bytes(4) + orientation.to_bytes(2) + bytes(2)
    )
    return b"MM\x00*" + (8).to_bytes(4) + (1).to_bytes(2) + entry + bytes(4)
