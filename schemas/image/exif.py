"""Read the orientation of EXIF data, and write EXIF data that has nothing else.

Viewers agree on plain data alone. Some read an orientation that is a LONG, given twice, or behind a wrong
number for TIFF, and some do not: what browsers do counts, because people review photos in them.

Source: JEITA CP-3451 (EXIF 2.3), section 4.6; TIFF 6.0, section 2.
"""

from typing import Literal, NamedTuple

EXIF_HEADER = b"Exif\x00\x00"
UPRIGHT = 1
TIFF_MAGIC = 42
HEAD_BYTES = 8
"""Of the header of EXIF data; what is shorter is none."""

_BYTE_ORDERS: dict[bytes, Literal["little", "big"]] = {b"II": "little", b"MM": "big"}
_ORIENTATION = 0x0112
_SHORT = 3
_ENTRY_BYTES = 12
MAX_ENTRIES = 5461
"""Entries of the directory that are read: as many as a segment of a JPEG can have."""

_MAX_BYTES = 2**16
_ORIENTATIONS = range(1, 9)


class Orientation(NamedTuple):
    """The orientation in EXIF data.

    Args:
        value: 1 to 8; 1 if there is none.
        plain: Whether every viewer reads this value.
    """

    value: int
    plain: bool


def read_orientation(tiff: bytes) -> Orientation:
    """Return the orientation in EXIF data: the first that is a single SHORT of 1 to 8.

    Takes bounded time: the entries of the first directory alone are read.

    Args:
        tiff: EXIF data from the byte order mark on.
    """
    if tiff[:2] not in _BYTE_ORDERS:
        return Orientation(UPRIGHT, plain=False)
    order = _BYTE_ORDERS[tiff[:2]]

    def number(at: int, size: int) -> int:
        return int.from_bytes(tiff[at : at + size], order)

    if number(2, 2) != TIFF_MAGIC:
        return Orientation(UPRIGHT, plain=False)
    at, tag = number(4, 4), _ORIENTATION.to_bytes(2, order)
    count = number(at, 2)
    end = at + 2 + min(count, MAX_ENTRIES) * _ENTRY_BYTES
    found = [
        entry for entry in range(at + 2, min(end, len(tiff)), _ENTRY_BYTES) if tiff.startswith(tag, entry)
    ]
    singles = [
        entry
        for entry in found
        if number(entry + 2, 2) == _SHORT and number(entry + 4, 4) == 1 and entry + _ENTRY_BYTES <= len(tiff)
    ]
    values = [number(entry + 8, 2) for entry in singles]
    is_whole = at >= HEAD_BYTES and end <= min(len(tiff), _MAX_BYTES) and count <= MAX_ENTRIES
    return Orientation(
        next((value for value in values if value in _ORIENTATIONS), UPRIGHT),
        plain=is_whole and len(found) <= 1 and len(singles) == len(found),
    )


def orientation_only(orientation: int) -> bytes:
    """Return EXIF data with an orientation alone, from the byte order mark on; 26 bytes."""
    entry = (
        _ORIENTATION.to_bytes(2) + _SHORT.to_bytes(2) + (1).to_bytes(4) + orientation.to_bytes(2) + bytes(2)
    )
    return b"MM\x00*" + (8).to_bytes(4) + (1).to_bytes(2) + entry + bytes(4)
