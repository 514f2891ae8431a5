"""Check the frame and scan headers of a JPEG as libjpeg does.

Source: libjpeg-turbo, `jdmarker.c` (get_sof, get_sos), `jdinput.c` (initial_setup, per_scan_setup),
`jdphuff.c` (start_pass_phuff_decoder), `jdsample.c` (jinit_upsampler).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from schemas.image.jpeg_tables import SegmentError, Tables

SOF_BASELINE, SOF_EXTENDED, SOF_PROGRESSIVE, SOF_ARITHMETIC, SOF_PROGRESSIVE_ARITHMETIC = (
    0xC0,
    0xC1,
    0xC2,
    0xC9,
    0xCA,
)
DECODABLE_FRAMES = frozenset(
    {SOF_BASELINE, SOF_EXTENDED, SOF_PROGRESSIVE, SOF_ARITHMETIC, SOF_PROGRESSIVE_ARITHMETIC}
)
_PROGRESSIVE = frozenset({SOF_PROGRESSIVE, SOF_PROGRESSIVE_ARITHMETIC})
_ARITHMETIC = frozenset({SOF_ARITHMETIC, SOF_PROGRESSIVE_ARITHMETIC})

_MAX_SIDE = 65_500
_BITS = 8
_COMPONENT_COUNTS = frozenset({1, 3, 4})
_MAX_SAMPLING = 4
_MAX_MCU_BLOCKS = 10
_BLOCK = 8
_COEFFICIENTS = 64
_COEFFICIENT_BYTES = 2
_MAX_SHIFT = 13
_UNKNOWN = -1


class UnsupportedFrameError(Exception):
    """A frame of a kind that the common decoders do not read. Its text names it."""


@dataclass(slots=True)
class Component:
    """A colour component: its id, sampling factors, and quantisation table.

    `shifts` has the lowest bit known of each coefficient, -1 if none is.
    """

    id: int
    across: int
    down: int
    quantisation: int
    scanned: bool = False
    shifts: list[int] = field(default_factory=lambda: [_UNKNOWN] * _COEFFICIENTS)


@dataclass(slots=True)
class JpegFrame:
    """A frame header."""

    marker: int
    width: int
    height: int
    components: list[Component]
    # Attributes and no properties: they are read several times for each segment of each photo.
    progressive: bool = field(init=False)
    """True if a scan carries only some of the coefficients."""
    arithmetic: bool = field(init=False)
    """True if it is coded arithmetically."""

    def __post_init__(self) -> None:
        """Return in words what its marker means."""
        self.progressive = self.marker in _PROGRESSIVE
        self.arithmetic = self.marker in _ARITHMETIC

    @property
    def complete(self) -> bool:
        """True if the scans so far carried every coefficient."""
        for component in self.components:
            if any(component.shifts) if self.progressive else not component.scanned:
                return False
        return True

    @property
    def coefficient_bytes(self) -> int:
        """Memory of all coefficients, which a decoder keeps if there are several scans."""
        return self.blocks(self.components) * _COEFFICIENTS * _COEFFICIENT_BYTES

    def blocks(self, components: Sequence[Component]) -> int:
        """Return how many blocks of 8 x 8 samples some components have."""
        most_across = max([component.across for component in self.components])
        most_down = max([component.down for component in self.components])
        columns, rows = -(-self.width // (_BLOCK * most_across)), -(-self.height // (_BLOCK * most_down))
        return columns * rows * sum([component.across * component.down for component in components])


def read_frame(marker: int, body: bytes) -> JpegFrame:
    """Read a SOF segment.

    Raises:
        SegmentError: It is invalid.
        UnsupportedFrameError: It is valid, but of a kind that TensorFlow, Pillow or both do not decode.
    """
    if len(body) < 6 or len(body) != 6 + 3 * body[5]:  # noqa: PLR2004  # 3 bytes a component
        raise SegmentError("a frame header of the wrong length")
    bits, count = body[0], body[5]
    height, width = int.from_bytes(body[1:3]), int.from_bytes(body[3:5])
    if not width or not height or not count:
        raise SegmentError(f"a frame of {width}x{height} pixels")
    if max(width, height) > _MAX_SIDE:
        raise UnsupportedFrameError(f"a side of {max(width, height)} pixels")
    if marker not in DECODABLE_FRAMES:
        raise UnsupportedFrameError("lossless or hierarchical JPEG")
    if bits != _BITS:
        raise UnsupportedFrameError(f"JPEG with {bits} bits a channel")
    if count not in _COMPONENT_COUNTS:
        raise UnsupportedFrameError(f"JPEG with {count} channels")
    components = [
        Component(body[at], body[at + 1] >> 4, body[at + 1] & 0x0F, body[at + 2])
        for at in range(6, len(body), 3)
    ]
    _check_sampling(components)
    return JpegFrame(marker, width, height, components)


def _check_sampling(components: list[Component]) -> None:
    for factors in ([one.across for one in components], [one.down for one in components]):
        most = max(factors)
        if min(factors) < 1 or most > _MAX_SAMPLING:
            raise SegmentError("a sampling factor out of range")
        for factor in factors:
            if most % factor:
                raise UnsupportedFrameError("JPEG with fractional sampling factors")


def read_scan(frame: JpegFrame, tables: Tables, body: bytes) -> int:
    """Check a SOS segment against the frame and the tables, and note what the scan carries.

    Returns:
        The bytes without which not even a quarter of its blocks can be in the scan.

    Raises:
        SegmentError: libjpeg ends decoding before this scan.
    """
    if not body or not 1 <= body[0] <= 4 or len(body) != 4 + 2 * body[0]:  # noqa: PLR2004  # as in T.81, B.2.3
        raise SegmentError("a scan header of the wrong length")
    chosen, at = _components(frame, body[1:-3]), 1
    if len(chosen) > 1 and sum([one.across * one.down for one in chosen]) > _MAX_MCU_BLOCKS:
        raise SegmentError("a scan of too large units")
    start, end, high, low = body[-3], body[-2], body[-1] >> 4, body[-1] & 0x0F
    if frame.progressive:
        _check_progression(start, end, high, low, len(chosen))
    for component in chosen:
        # libjpeg keeps the table that is defined at a component's first scan.
        if not component.scanned and component.quantisation not in tables.quantisation:
            raise SegmentError(f"no quantisation table {component.quantisation}")
        numbers = body[at + 1]
        at += 2
        if not frame.arithmetic:
            _check_huffman(frame, tables, numbers >> 4, numbers & 0x0F, (start, high))
    for component in chosen:
        component.scanned = True
        if frame.progressive:
            component.shifts[start : end + 1] = [low] * (end + 1 - start)
    # Arithmetic coding can spend less than a bit on a block; so can a scan after the first.
    bits = 0 if frame.arithmetic else 1 if frame.progressive else 2
    return frame.blocks(chosen) * bits // 32


def _components(frame: JpegFrame, pairs: bytes) -> list[Component]:
    chosen: list[int] = []
    for wanted in pairs[::2]:
        # Ids can be given twice. libjpeg-turbo looks for one behind those that are taken, as here.
        at = len(chosen)
        while at < len(frame.components) and frame.components[at].id != wanted:
            at += 1
        if at == len(frame.components) or at in chosen:
            raise SegmentError(f"component {wanted}, which the frame does not have")
        chosen.append(at)
    return [frame.components[at] for at in chosen]


def _check_progression(start: int, end: int, high: int, low: int, components: int) -> None:
    is_dc = start == 0
    is_band = end == 0 if is_dc else start <= end < _COEFFICIENTS and components == 1
    if not is_band or (high and high - 1 != low) or low > _MAX_SHIFT:
        raise SegmentError("an invalid progression")


def _check_huffman(frame: JpegFrame, tables: Tables, dc: int, ac: int, progression: tuple[int, int]) -> None:
    start, high = progression
    needs_dc = not frame.progressive or (start == 0 and not high)
    needs_ac = not frame.progressive or start > 0
    if needs_dc and not tables.dc.get(dc, False):
        raise SegmentError(f"no valid Huffman table {dc} for DC")
    if needs_ac and not tables.ac.get(ac, False):
        raise SegmentError(f"no valid Huffman table {ac} for AC")
