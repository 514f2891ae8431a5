"""The difference hash of a picture, by which edge and dataset find near-duplicates."""

from PIL import Image

_COLUMNS, _ROWS = 9, 8

HASHED_SIZE = (8 * _COLUMNS, 8 * _ROWS)
"""Width and height in pixels that are enough: a JPEG is decoded at up to 1/8 of its size for it."""


def difference_hash(grey: Image.Image) -> int:
    """Return the 64-bit difference hash of a picture in mode L.

    Each bit is 1 if one of 9 x 8 cells is brighter than its right neighbour, so size, brightness and
    compression change few bits.

    Source: D. Hackerfactor (N. Krawetz), "Kind of Like That", 2013.
    """
    cells = grey.resize((_COLUMNS, _ROWS), Image.Resampling.BOX).tobytes()
    bits = 0
    for row in range(_ROWS):
        for at in range(row * _COLUMNS, (row + 1) * _COLUMNS - 1):
            bits = bits << 1 | (cells[at] > cells[at + 1])
    return bits
