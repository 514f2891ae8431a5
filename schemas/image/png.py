"""Walk the chunks of a PNG exactly as libpng does, and write the part of it that is decoded.

Ancillary chunks with a wrong checksum are skipped, critical ones are errors; a second header or palette is an
error. The normal form has header, palette, transparency, orientation, pixels and end, nothing else.

Source: W3C PNG 3rd edition; libpng 1.6, `pngrutil.c`.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from schemas.image.exif import UPRIGHT, read_orientation
from schemas.image.facts import ImageError, ImageLimits, check_pixels
from schemas.image.signatures import PNG_SIGNATURE

_MAX_LENGTH = 2**31 - 1
_MAX_SIDE = 1_000_000  # libpng's own limit
_OVERHEAD = 12  # length, type and checksum of a chunk
_HEAD_BYTES = 8  # length and type
_HEADER_BYTES = 13
EXIF_AT = len(PNG_SIGNATURE) + _OVERHEAD + _HEADER_BYTES
"""Where the exported graph looks for the orientation: right behind the header chunk."""

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
_DEPTHS = {
    GREY: {1, 2, 4, 8, 16},
    RGB: {8, 16},
    PALETTE: {1, 2, 4, 8},
    GREY_ALPHA: {8, 16},
    RGBA: {8, 16},
}
ALPHA_BIT = 4
_DEEP = 16
_BYTE = 8
PALETTE_ENTRY = 3
MAX_PALETTE = 256
_MAX_EXPANSION = 1032  # of deflate
# Each takes some microseconds, also an empty one: time stays in proportion to bytes.
_SMALL_CHUNKS, _CHUNK_BYTES = 1_000, 1_024
_SMALL_TEXT_BYTES, _TEXT_EXPANSION = 256 * 1024, 8
_LENGTHS = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"pHYs": 9, b"tIME": 7, b"cICP": 4}
"""Of chunks whose data have one; Pillow refuses a picture where some are shorter."""
_BACKGROUND_BYTES = {GREY: 2, RGB: 6, PALETTE: 1, GREY_ALPHA: 2, RGBA: 6}
_ANIMATION = frozenset({b"acTL", b"fcTL", b"fdAT"})
_METADATA = (b"Raw profile type ", b"XML:com.adobe.xmp\x00")
_PILLOW_TEXT_BYTES = 1024 * 1024
"""Of one text or profile: Pillow refuses a picture with a larger one."""
_TEXT = frozenset({b"iCCP", b"zTXt", b"iTXt", b"tEXt"})


class Chunk(NamedTuple):
    """A chunk: its type and data, and whether its checksum is right."""

    kind: bytes
    data: bytes
    valid: bool

    @property
    def ancillary(self) -> bool:
        """True if a decoder may skip it: the first letter is a small one."""
        return bool(self.kind[0] & 0x20)

    @property
    def has_reserved_bit(self) -> bool:
        """True if its type is none of this version of PNG: the third letter is a small one."""
        return bool(self.kind[2] & 0x20)


@dataclass(slots=True)
class PngStream:
    """What libpng decodes of a file.

    Args:
        width: In pixels.
        height: In pixels.
        depth: Bits of a sample.
        colour: Colour type of the header.
        header: Data of the header chunk.
        palette: Data of the palette chunk.
        transparency: Data of a valid tRNS chunk.
        pixels: Data of the IDAT chunks.
        chunks: Number of chunks.
        frames: Frames of an animation.
        text_bytes: Text and profile so far, decompressed.
        most_text_bytes: How much they may be in a file of this size.
        orientation: Of the first valid eXIf chunk.
        exact: Whether all decoders read the file alike.
        damaged: Why data are missing or wrong.
    """

    width: int
    height: int
    depth: int
    colour: int
    header: bytes
    palette: bytes | None = None
    transparency: bytes | None = None
    pixels: list[bytes] = field(default_factory=list)
    chunks: int = 1
    frames: int = 0
    text_bytes: int = 0
    most_text_bytes: int = 0
    orientation: int = UPRIGHT
    has_exif: bool = False
    exact: bool = True
    damaged: str | None = None

    @property
    def interlaced(self) -> bool:
        """True if the pixels come in seven passes."""
        return bool(self.header[-1])


def walk_png(image: bytes, limits: ImageLimits) -> PngStream:
    """Read all chunks of a PNG, in linear time.

    Raises:
        ImageError: libpng ends with an error before the pixels, or a budget is exceeded.
    """
    chunks = _chunks(image, len(PNG_SIGNATURE))
    before, header = 0, next(chunks, None)
    while header is not None and header.ancillary and before < _SMALL_CHUNKS:
        before, header = before + 1, next(chunks, None)
    stream = _read_header(header, image, limits)
    stream.chunks += before
    stream.exact = not before
    stream.most_text_bytes = _SMALL_TEXT_BYTES + _TEXT_EXPANSION * len(image)
    pixels_ended = False
    most = min(limits.max_chunks, _SMALL_CHUNKS + len(image) // _CHUNK_BYTES)
    for chunk in chunks:
        stream.chunks += 1
        if stream.chunks > most:
            raise _over(f"at most {most} chunks in {len(image)} bytes", "more")
        if chunk.kind == b"IEND":
            stream.exact = stream.exact and chunk.valid and not chunk.data
            break
        pixels_ended = pixels_ended or (bool(stream.pixels) and chunk.kind != b"IDAT")
        if chunk.ancillary:
            _read_ancillary(stream, chunk, limits)
        elif pixels_ended:
            # All pixels were read before this chunk, which a decoder may refuse.
            stream.exact = False
        else:
            _read_critical(stream, chunk)
    else:
        stream.exact, stream.damaged = False, "no end chunk"
    if not stream.pixels:
        raise corrupt("no pixels")
    return stream


def _chunks(image: bytes, at: int) -> Iterator[Chunk]:
    """Yield the chunks that are there in full, up to one that cannot be a chunk.

    Viewers show the pixels before such an end. Of pixels, the checksum alone may be cut off: those of their
    compression show whether they are all there.
    """
    while at + _HEAD_BYTES <= len(image):
        length, kind = int.from_bytes(image[at : at + 4]), image[at + 4 : at + _HEAD_BYTES]
        end = at + _HEAD_BYTES + length
        if length > _MAX_LENGTH or end > len(image) or not (kind.isalpha() and kind.isascii()):
            return
        is_cut = end + 4 > len(image)
        checksum = zlib.crc32(image[at + 4 : end])
        is_valid = kind == b"IDAT" if is_cut else checksum == int.from_bytes(image[end : end + 4])
        yield Chunk(kind, image[at + _HEAD_BYTES : end], is_valid)
        at = end + 4


def _read_header(chunk: Chunk | None, image: bytes, limits: ImageLimits) -> PngStream:
    if chunk is not None and chunk.kind == b"CgBI":
        raise ImageError(
            expected="a PNG",
            got="one that Xcode made for an iPhone app, which viewers do not read",
            hint="use the original of the picture",
            code="unsupported-image",
        )
    if chunk is None or chunk.kind != b"IHDR" or len(chunk.data) != _HEADER_BYTES:
        raise corrupt(f"no header chunk in {len(image)} bytes")
    data = chunk.data
    width, height = int.from_bytes(data[:4]), int.from_bytes(data[4:8])
    depth, colour, compression, filtering, interlace = data[8:]
    if not width or not height:
        raise ImageError(expected="at least one pixel", got=f"{width}x{height}", code="corrupt-image")
    check_pixels(width, height, limits)
    if max(width, height) > _MAX_SIDE or not chunk.valid:
        raise corrupt("a header with a wrong checksum or a side of more than a million pixels")
    if depth not in _DEPTHS.get(colour, ()) or compression or filtering or interlace > 1:
        raise corrupt(f"a header with the values {data[8:].hex(' ')}")
    return PngStream(width, height, depth, colour, data)


def _read_critical(stream: PngStream, chunk: Chunk) -> None:
    if chunk.kind == b"PLTE" and stream.colour in {GREY, GREY_ALPHA}:
        stream.exact = False  # libpng ignores it
        return
    if not chunk.valid:
        raise corrupt(f"a wrong checksum in {chunk.kind.decode()}")
    if chunk.kind == b"PLTE":
        _read_palette(stream, chunk.data)
    elif chunk.kind == b"IDAT":
        if stream.colour == PALETTE and stream.palette is None:
            raise corrupt("pixels before the palette")
        stream.pixels.append(chunk.data)
    else:  # also a second IHDR, which would change what was checked
        raise corrupt(f"a critical chunk {chunk.kind.decode()}")


def _read_palette(stream: PngStream, data: bytes) -> None:
    if stream.palette is not None:
        raise corrupt("a second palette")
    stream.palette = data
    entries, rest = divmod(len(data), PALETTE_ENTRY)
    is_valid = not rest and 1 <= entries <= MAX_PALETTE
    if stream.colour == PALETTE:
        if not is_valid:
            raise corrupt(f"a palette of {len(data)} bytes")
        if entries > 1 << stream.depth:
            stream.exact = False
    else:
        stream.exact = False  # a suggestion only; behind a transparent colour, it cancels that for libpng


def _read_ancillary(stream: PngStream, chunk: Chunk, limits: ImageLimits) -> None:
    length = _LENGTHS.get(chunk.kind, len(chunk.data))
    if not chunk.valid or chunk.has_reserved_bit or len(chunk.data) != length:
        stream.exact = False  # with a reserved type, newer versions of libpng end with an error
    elif chunk.kind == b"tRNS":
        _read_transparency(stream, chunk.data)
    elif chunk.kind == b"eXIf":
        _read_exif(stream, chunk.data)
    elif chunk.kind == b"bKGD":
        stream.exact = stream.exact and len(chunk.data) == _BACKGROUND_BYTES[stream.colour]
    elif chunk.kind in _ANIMATION:
        stream.exact = False  # readers of animations differ about those that are not in order
        stream.frames += chunk.kind == b"fcTL"
        if stream.frames > limits.max_frames:
            raise _over(f"at most {limits.max_frames} frames", "more")
    elif chunk.kind in _TEXT:
        _read_text(stream, chunk, limits)


def _read_exif(stream: PngStream, data: bytes) -> None:
    """Read the orientation; what only some viewers read is left out of the normal form."""
    if stream.has_exif:
        stream.exact = False
        return
    stream.has_exif = True
    stream.orientation, is_plain = read_orientation(data)
    is_in_place = stream.chunks == 2  # noqa: PLR2004  # behind the header
    if not is_plain or (stream.orientation != UPRIGHT and not is_in_place):
        stream.exact = False


def _read_transparency(stream: PngStream, data: bytes) -> None:
    expected = {GREY: 2, RGB: 6}.get(stream.colour)
    if stream.colour == PALETTE:
        is_valid = stream.palette is not None and 0 < len(data) <= len(stream.palette) // PALETTE_ENTRY
    else:
        is_valid = len(data) == expected
    # A transparent colour of 16 bits is left out: decoders compare it before or after scaling to 8 bits.
    if not is_valid or stream.pixels or stream.transparency is not None or stream.depth == _DEEP:
        stream.exact = False
    else:
        stream.transparency = data
        filler = opaque_filler(stream.depth)
        if stream.colour == PALETTE and stream.depth < _BYTE and filler in data:
            stream.exact = False
            stream.transparency = data.replace(bytes([filler]), bytes([filler - 1]))


def opaque_filler(depth: int) -> int:
    """Return the alpha value that TensorFlow gives to opaque pixels: it depends on the bits of a sample."""
    return (1 << min(depth, _BYTE)) - 1


def _read_text(stream: PngStream, chunk: Chunk, limits: ImageLimits) -> None:
    if chunk.data.startswith(_METADATA):
        stream.exact = False  # some viewers take the orientation from it
    if chunk.kind != b"tEXt":
        _count_text(stream, chunk, limits)


def _count_text(stream: PngStream, chunk: Chunk, limits: ImageLimits) -> None:
    """Add the decompressed size of text, which libpng decompresses whether it is wanted or not."""
    start, before = _compressed_at(chunk), stream.text_bytes
    most = min(limits.max_text_bytes, stream.most_text_bytes)
    stream.text_bytes += len(chunk.data)
    if start is None:
        stream.exact = stream.exact and chunk.kind == b"iTXt"  # of which not all is compressed
    else:
        method = chunk.data.find(b"\x00") + (2 if chunk.kind == b"iTXt" else 1)
        stream.exact = stream.exact and chunk.data[method : method + 1] == b"\x00"  # Pillow knows no other
        left = max(1, most + 1 - stream.text_bytes)
        try:
            stream.text_bytes += len(zlib.decompressobj().decompress(chunk.data[start:], left))
        except zlib.error:
            # A decoder decompresses it up to the error, too.
            stream.text_bytes += min(left, _MAX_EXPANSION * len(chunk.data))
            stream.exact = False
    if stream.text_bytes > most:
        raise _over(f"at most {most} bytes of text and colour profile", "more")
    if stream.text_bytes - before > _PILLOW_TEXT_BYTES:
        stream.exact = False


def _compressed_at(chunk: Chunk) -> int | None:
    """Return where the compressed data of a text chunk start, None if it has none."""
    keyword = chunk.data.find(b"\x00")
    if keyword < 0:
        return None
    if chunk.kind != b"iTXt":
        return keyword + 2  # behind the compression method
    if chunk.data[keyword + 1 : keyword + 2] != b"\x01":
        return None
    language = chunk.data.find(b"\x00", keyword + 3)
    translated = chunk.data.find(b"\x00", language + 1)
    return None if language < 0 or translated < 0 else translated + 1


def corrupt(got: str) -> ImageError:
    """Return the error for a file that cannot be decoded as PNG."""
    return ImageError(expected="a whole png", got=got, code="corrupt-image")


def _over(expected: str, got: str) -> ImageError:
    return ImageError(
        expected=expected, got=got, hint="save the photo without metadata", code="unsupported-image"
    )
