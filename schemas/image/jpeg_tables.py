"""Check the tables of a JPEG as libjpeg does: quantisation, Huffman codes, arithmetic conditioning.

Source: libjpeg-turbo, `jdmarker.c` (get_dqt, get_dht, get_dac) and `jdhuff.c` (jpeg_make_d_derived_tbl).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

_TABLES = 4
_COEFFICIENTS = 64
_CODE_LENGTHS = 16
_MAX_CODES = 256
_AC = 0x10
_ARITHMETIC_TABLES = 16


class SegmentError(Exception):
    """A segment on which libjpeg ends decoding. Its text has the reason."""


@dataclass(slots=True)
class Tables:
    """The tables that a decoder has at one point of a file.

    Args:
        quantisation: Numbers of the tables that are defined.
        dc: Whether a DC decoder can be made of a Huffman table, by its number.
        ac: The same for AC.
        defined: How many tables were read so far.
    """

    quantisation: set[int] = field(default_factory=set)
    # Motion JPEG leaves out the standard tables; libjpeg-turbo has them as default, for sequential files.
    dc: dict[int, bool] = field(default_factory=dict)
    ac: dict[int, bool] = field(default_factory=dict)
    defined: int = 0

    def read_quantisation(self, body: bytes) -> None:
        """Read a DQT segment."""
        at = 0
        while at < len(body):
            number = body[at] & 0x0F
            at += 1 + _COEFFICIENTS * (2 if body[at] >> 4 else 1)
            if number >= _TABLES:
                raise SegmentError(f"quantisation table {number}")
            self.quantisation.add(number)
            self.defined += 1
        if at != len(body):
            raise SegmentError("a quantisation table of the wrong length")

    def read_huffman(self, body: bytes) -> None:
        """Read a DHT segment."""
        tables = _huffman_tables(body)
        for is_ac, number, is_usable in tables:
            (self.ac if is_ac else self.dc)[number] = is_usable
        self.defined += len(tables)

    def read_conditioning(self, body: bytes) -> None:
        """Read a DAC segment."""
        if len(body) % 2:
            raise SegmentError("arithmetic conditioning of the wrong length")
        for number, value in zip(body[::2], body[1::2], strict=True):
            if number >= 2 * _ARITHMETIC_TABLES:
                raise SegmentError(f"arithmetic table {number}")
            if number < _ARITHMETIC_TABLES and value & 0x0F > value >> 4:
                raise SegmentError(f"arithmetic conditioning {value:#04x}")
            self.defined += 1

    def use_standard_huffman(self) -> None:
        """Define the tables that a sequential file may leave out."""
        for number in (0, 1):
            self.dc.setdefault(number, True)
            self.ac.setdefault(number, True)


# Most cameras write the same tables into each photo. At most 64 segments of 64 kB are kept.
@lru_cache(maxsize=64)
def _huffman_tables(body: bytes) -> Sequence[tuple[bool, int, bool]]:
    """Return the tables of a DHT segment: whether for AC, its number, whether a decoder can be made of it.

    Raises:
        SegmentError: The segment is invalid.
    """
    tables, at = [], 0
    while len(body) - at > _CODE_LENGTHS:
        kind, counts = body[at], body[at + 1 : at + 1 + _CODE_LENGTHS]
        at += 1 + _CODE_LENGTHS
        total = sum(counts)
        if total > _MAX_CODES or total > len(body) - at:
            raise SegmentError("a Huffman table with too many codes")
        is_ac, number = bool(kind & _AC), kind & ~_AC
        if number >= _TABLES:
            raise SegmentError(f"Huffman table {number}")
        is_usable = _is_prefix_code(counts)
        if not is_ac:
            is_usable = is_usable and max(body[at : at + total], default=0) <= 15  # noqa: PLR2004  # bits of a difference
        tables.append((is_ac, number, is_usable))
        at += total
    if at != len(body):
        raise SegmentError("a Huffman table of the wrong length")
    return tuple(tables)


def _is_prefix_code(counts: bytes) -> bool:
    """Return True if codes of these numbers by length exist; none may be all ones."""
    code, codes, last = 0, 0, len(counts.rstrip(b"\x00"))
    for length, count in enumerate(counts[:last], 1):
        code += count
        codes += count
        if code >= 1 << length:
            return False
        code <<= 1
    return codes <= _MAX_CODES
