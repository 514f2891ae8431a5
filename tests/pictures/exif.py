"""EXIF data with an orientation as viewers differ about it, and what browsers make of each."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

ORIENTATION, SHORT, LONG, BYTE, SIGNED = 0x0112, 3, 4, 1, 8
_OTHER = (0x010F, 2, 1, 0x61)


class Exif(NamedTuple):
    """EXIF data, from the byte order mark on.

    Args:
        data: The bytes.
        orientation: As Chromium shows a photo with it.
        plain: Whether Chromium, Pillow and OpenCV agree.
    """

    data: bytes
    orientation: int
    plain: bool


def tiff(
    entries: Sequence[tuple[int, int, int, int]],
    order: Literal["little", "big"] = "big",
    *,
    magic: int = 42,
    at: int = 8,
    count: int | None = None,
) -> bytes:
    """Return EXIF data with one directory: tag, type, number of values and value of each entry."""

    def number(value: int, size: int) -> bytes:
        return value.to_bytes(size, order)

    def entry(tag: int, kind: int, values: int, value: int) -> bytes:
        # A value shorter than four bytes is at their beginning.
        wide = number(value, 4) if kind == LONG else number(value, 2) + bytes(2)
        return number(tag, 2) + number(kind, 2) + number(values, 4) + wide

    mark = b"II" if order == "little" else b"MM"
    head = mark + number(magic, 2) + number(at, 4) + bytes(max(0, at - 8))
    listed = b"".join(entry(*one) for one in entries)
    return head + number(len(entries) if count is None else count, 2) + listed + bytes(4)


def exif_data() -> dict[str, Exif]:
    """Return all by name."""
    six = (ORIENTATION, SHORT, 1, 6)
    whole = tiff([six])
    many = [(0x9000, SHORT, 1, 1)] * 600
    return {
        "big-endian": Exif(whole, 6, plain=True),
        "little-endian": Exif(tiff([six], "little"), 6, plain=True),
        "behind others": Exif(tiff([_OTHER, six]), 6, plain=True),
        "a later directory": Exif(tiff([six], at=40), 6, plain=True),
        "an odd directory": Exif(tiff([six], at=9), 6, plain=True),
        "of 600 entries": Exif(tiff([*many, six]), 6, plain=True),
        "no next directory": Exif(whole[:-4], 6, plain=True),
        "none": Exif(tiff([_OTHER]), 1, plain=True),
        "zero": Exif(tiff([(ORIENTATION, SHORT, 1, 0)]), 1, plain=True),
        "nine": Exif(tiff([(ORIENTATION, SHORT, 1, 9)]), 1, plain=True),
        "magic 0": Exif(tiff([six], magic=0), 1, plain=False),
        "magic 43": Exif(tiff([six], magic=43), 1, plain=False),
        "magic of RW2": Exif(tiff([six], "little", magic=0x55), 1, plain=False),
        "a LONG": Exif(tiff([(ORIENTATION, LONG, 1, 6)]), 1, plain=False),
        "a BYTE": Exif(tiff([(ORIENTATION, BYTE, 1, 0x0600)]), 1, plain=False),
        "signed": Exif(tiff([(ORIENTATION, SIGNED, 1, 6)]), 1, plain=False),
        "no value": Exif(tiff([(ORIENTATION, SHORT, 0, 6)]), 1, plain=False),
        "two values": Exif(tiff([(ORIENTATION, SHORT, 2, 6)]), 1, plain=False),
        "twice": Exif(tiff([six, (ORIENTATION, SHORT, 1, 3)]), 6, plain=False),
        "twice, first invalid": Exif(tiff([(ORIENTATION, SHORT, 1, 9), six]), 6, plain=False),
        "twice, first a LONG": Exif(tiff([(ORIENTATION, LONG, 1, 3), six]), 6, plain=False),
        "more entries than there are": Exif(tiff([six], count=65_535), 6, plain=False),
        "no directory": Exif(tiff([six], at=8)[:8], 1, plain=False),
        "a directory in the header": Exif(b"MM\x00*\x00\x00\x00\x00" + whole[8:], 1, plain=False),
        "cut in the entry": Exif(whole[:20], 1, plain=False),
        "no byte order": Exif(b"mm" + whole[2:], 1, plain=False),
        "a byte before": Exif(b"\x00" + whole, 1, plain=False),
        "rubbish": Exif(b"rubbish, and more", 1, plain=False),
    }


def grey_tiff(size: tuple[int, int], bits: int, pixels: bytes, *, white_is_zero: bool = False) -> bytes:
    """Return a TIFF of one channel without compression; of 32 bits: floats."""
    width, height = size

    def head(offset: int) -> bytes:
        entries = [(256, SHORT, 1, width), (257, SHORT, 1, height), (258, SHORT, 1, bits), (259, SHORT, 1, 1)]
        entries += [(262, SHORT, 1, int(not white_is_zero)), (273, LONG, 1, offset), (277, SHORT, 1, 1)]
        entries += [(278, SHORT, 1, height), (279, LONG, 1, len(pixels))]
        return tiff([*entries, (339, SHORT, 1, 3 if bits == 32 else 1)], "little")

    return head(len(head(0))) + pixels
