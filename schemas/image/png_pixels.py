"""What decoding a PNG costs, whether its pixels are all there, and the bytes to decode."""

import zlib
from collections.abc import Iterable, Sequence
from itertools import chain, islice

from schemas.image.exif import UPRIGHT, orientation_only
from schemas.image.facts import ImageError, ImageFacts, ImageLimits, check_facts, raster_bytes
from schemas.image.png import (
    ALPHA_BIT,
    CHANNELS,
    MAX_PALETTE,
    PALETTE,
    PALETTE_ENTRY,
    PngStream,
    corrupt,
)
from schemas.image.signatures import PNG_SIGNATURE

_BYTE = 8
_DEFLATE, _LARGEST_WINDOW, _CHECK = 8, 0x78, 31
_WINDOW_BYTES = 1 << 15
_OUTPUT_BYTES = 256 * 1024
_SURPLUS_BYTES = 1024 * 1024
_UNREADABLE = "pixels that cannot be decompressed"
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png_facts(stream: PngStream, limits: ImageLimits) -> ImageFacts:
    """Return the facts of a PNG.

    Raises:
        ImageError: Decoding would exceed a budget.
    """
    channels = 3 if stream.colour == PALETTE else CHANNELS[stream.colour]
    facts = ImageFacts(
        format="png",
        stored_width=stream.width,
        stored_height=stream.height,
        orientation=stream.orientation,
        bit_depth=stream.depth,
        channels=channels,
        has_alpha=stream.transparency is not None or bool(stream.colour & ALPHA_BIT),
        scans=1,
        # The raster as it is stored, and as RGB.
        decoded_bytes=raster_bytes(stream.width, stream.height)
        + row_bytes(stream.width, stream) * stream.height,
        exact=stream.exact and not _has_small_window(stream),
        damaged=stream.damaged,
    )
    check_facts(facts, limits)
    return facts


def row_bytes(columns: int, stream: PngStream) -> int:
    """Return the bytes of a stored row of some columns, without its filter byte."""
    return (columns * CHANNELS[stream.colour] * stream.depth + 7) // 8


def check_pixel_data(stream: PngStream) -> None:
    """Decompress the pixels without keeping them; raise ImageError if there are too few, or damaged ones.

    Decoders disagree about a wrong checksum or a missing end, so both are refused. Takes about a third of the
    time of decoding, and little memory. Decoders leave the data behind the pixels alone, which can expand a
    thousand times.
    """
    found, inflate = 0, zlib.decompressobj()
    most = _raw_bytes(stream) + _SURPLUS_BYTES
    try:
        for data in stream.pixels:
            rest = data
            while rest and not inflate.eof:
                found += len(inflate.decompress(rest, _OUTPUT_BYTES))
                if found > most:
                    raise ImageError(
                        expected=f"a whole png with at most {_SURPLUS_BYTES} bytes behind its pixels",
                        got="more",
                        hint="save the photo again",
                        code="unsupported-image",
                    )
                rest = inflate.unconsumed_tail
    except zlib.error as error:
        place = " behind the last row" if found >= _raw_bytes(stream) else ""
        raise corrupt(f"{_UNREADABLE}{place} ({error})") from None
    if found < _raw_bytes(stream):
        raise corrupt(f"{found} bytes of pixels, which are too few")
    if not inflate.eof:
        raise corrupt(f"{_UNREADABLE} (no end)")


def _has_small_window(stream: PngStream) -> bool:
    """Return True if the pixels may refer back further than their header says.

    libpng then ends with an error or not, by how the data are split; browsers and Pillow do not mind.
    """
    head = _zlib_head(stream.pixels)
    return head is not None and 1 << (_BYTE + (head[0] >> 4)) < min(_raw_bytes(stream), _WINDOW_BYTES)


def _zlib_head(pixels: Iterable[bytes]) -> bytes | None:
    """Return the first two bytes of the pixels: method, window and flags; None if they are invalid.

    Source: RFC 1950, section 2.2.
    """
    head = bytes(islice(chain.from_iterable(pixels), 2))
    is_valid = len(head) == 2 and head[0] & 0x0F == _DEFLATE and not int.from_bytes(head) % _CHECK  # noqa: PLR2004
    return head if is_valid else None


def _with_largest_window(pixels: Sequence[bytes]) -> Sequence[bytes]:
    head = _zlib_head(pixels)
    if head is None or head[0] == _LARGEST_WINDOW:
        return pixels
    value = _LARGEST_WINDOW << _BYTE | head[1] & 0xE0
    return [(value + -value % _CHECK).to_bytes(2) + b"".join(pixels)[2:]]


def _raw_bytes(stream: PngStream) -> int:
    """Return the bytes of all rows with their filter bytes."""
    if not stream.interlaced:
        return (row_bytes(stream.width, stream) + 1) * stream.height
    total = 0
    for left, top, across, down in ADAM7:
        columns, rows = -(-(stream.width - left) // across), -(-(stream.height - top) // down)
        if columns > 0 and rows > 0:
            total += (row_bytes(columns, stream) + 1) * rows
    return total


def write_png(stream: PngStream) -> bytes:
    """Return the normal form."""
    pieces = [PNG_SIGNATURE, chunk_bytes(b"IHDR", stream.header)]
    if stream.orientation != UPRIGHT:
        pieces.append(chunk_bytes(b"eXIf", orientation_only(stream.orientation)))
    if stream.colour == PALETTE and stream.palette is not None:
        pieces.append(chunk_bytes(b"PLTE", stream.palette[: PALETTE_ENTRY << stream.depth]))
    if stream.transparency is not None:
        most = 1 << stream.depth if stream.colour == PALETTE else None
        pieces.append(chunk_bytes(b"tRNS", stream.transparency[:most]))
    pieces += [chunk_bytes(b"IDAT", data) for data in _with_largest_window(stream.pixels)]
    return b"".join((*pieces, chunk_bytes(b"IEND", b"")))


def chunk_bytes(kind: bytes, data: bytes) -> bytes:
    """Return a chunk with its length and checksum."""
    return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)


def png_essence(stream: PngStream) -> bytes:
    """Return the pixels alone for a decoder that has to apply neither orientation nor transparency.

    A palette is filled up to 256 entries with black, as in libpng: a pixel may have any index.
    """
    pieces = [PNG_SIGNATURE, chunk_bytes(b"IHDR", stream.header)]
    if stream.colour == PALETTE and stream.palette is not None:
        full = stream.palette[: PALETTE_ENTRY << stream.depth].ljust(PALETTE_ENTRY * MAX_PALETTE, b"\x00")
        pieces.append(chunk_bytes(b"PLTE", full))
    pieces += [chunk_bytes(b"IDAT", data) for data in stream.pixels]
    return b"".join((*pieces, chunk_bytes(b"IEND", b"")))
