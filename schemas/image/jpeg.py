"""Walk the markers of a JPEG exactly as libjpeg does, and write the part of it that is decoded.

A decoder skips bytes that belong to no segment, takes `FF 00` for such bytes, ends at the first EOI, and adds
an EOI that is missing. What differs between decoders (TensorFlow, Pillow, libjpeg's versions) is left out of
the normal form: metadata but the orientation, everything after an error, further pictures.

Source: ITU-T T.81, annex B; libjpeg-turbo, `jdmarker.c` (read_markers, next_marker, jpeg_resync_to_restart).
"""

import re
from dataclasses import dataclass, field
from itertools import islice

from schemas.image.exif import EXIF_HEADER, HEAD_BYTES, UPRIGHT, orientation_only, read_orientation
from schemas.image.facts import (
    ImageError,
    ImageFacts,
    ImageLimits,
    check_facts,
    check_pixels,
    check_scans,
    raster_bytes,
)
from schemas.image.jpeg_frame import JpegFrame, UnsupportedFrameError, read_frame, read_scan
from schemas.image.jpeg_tables import SegmentError, Tables

_SOI, _EOI, _SOS, _DQT, _DHT, _DAC, _DRI, _DNL, _COM = 0xD8, 0xD9, 0xDA, 0xDB, 0xC4, 0xCC, 0xDD, 0xDC, 0xFE
_APP0, _APP1, _APP14, _APP15 = 0xE0, 0xE1, 0xEE, 0xEF
_SOF = frozenset(range(0xC0, 0xD0)) - {_DHT, _DAC, 0xC8}
_SOF_LS = 0xF7
_SKIPPED = frozenset({_COM, _DNL, *range(_APP0, _APP15 + 1)})

# RST0 to RST7 and TEM have no length and no meaning between segments. Of `FF FF D8`, the first FF is filling.
_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")
# In a scan, only these can end it. Others are damaged data: after one of them libjpeg could decode no more,
# so the normal form has `FF 00` instead, which is what most of them were.
_SCAN_END = re.compile(rb"\xff[\xc4\xcc\xd8-\xdd\xe0-\xef\xfe]")
_NOT_DATA = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_DAMAGED_DATA = re.compile(rb"\xff[\x01-\xc3\xc5-\xcb\xcd-\xcf\xde\xdf\xf0-\xfd]")

NO_END = "image file is truncated: no end marker"
"""Why a JPEG is `damaged` whose pixels may all be there: some cameras write no end marker."""

MAX_DAMAGE = 20_000
"""Invalid markers in the data of scans, twice as many as 3 MB of random bytes have."""

MAX_APP0_BYTES = 1024
"""Where the exported graph skips APP0 to find EXIF data; larger ones hold a thumbnail."""

_JFIF = b"JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
_JFIF_BYTES = 14
_EXIF_START = b"Exif\x00"
_XMP = b"http://ns.adobe.com/xap/1.0/\x00"
_XMP_ORIENTATION = b"Orientation"
_ADOBE = b"Adobe"
_ADOBE_BYTES = 12
_CMYK_CHANNELS = 4
_BITS = 8


@dataclass(slots=True)
class JpegStream:
    """What libjpeg decodes of a file.

    Args:
        image: The file.
        parts: Ranges of bytes to decode: segments, and the data of scans.
        frame: Its only frame header.
        tables: As they are at the end.
        scans: Number of scans.
        single_scan: Whether the first scan carries all, so that a decoder expects no other.
        least_bytes: Size of the first scan below which there is no picture.
        segments: Number of segments.
        damages: Number of invalid markers in the data of scans.
        orientation: Of the first EXIF segment.
        has_exif: Whether there is one.
        jfif: Whether there is a JFIF segment, which gives the colours.
        adobe: The colour transform of an Adobe segment.
        exact: Whether all decoders read the file alike.
        damaged: Why data are missing or wrong.
    """

    image: bytes
    parts: list[tuple[int, int]] = field(default_factory=list)
    frame: JpegFrame | None = None
    tables: Tables = field(default_factory=Tables)
    scans: int = 0
    single_scan: bool = False
    least_bytes: int = 0
    segments: int = 0
    damages: int = 0
    orientation: int = UPRIGHT
    has_exif: bool = False
    jfif: bool = False
    adobe: int | None = None
    exact: bool = True
    damaged: str | None = None


def walk_jpeg(image: bytes, limits: ImageLimits) -> JpegStream:
    """Read all segments of a JPEG, in linear time.

    Raises:
        ImageError: libjpeg finds no scan to decode, or there are too many scans or segments.
    """
    stream = JpegStream(image)
    at: int | None = 2
    try:
        while at is not None:
            at = _step(stream, at, limits)
    except UnsupportedFrameError as error:
        raise ImageError(
            expected="a JPEG of 8 bits a channel, grey, colour or CMYK",
            got=error,
            hint="convert it to an ordinary JPEG or PNG",
            code="unsupported-image",
        ) from None
    except SegmentError as error:
        if not stream.scans:
            raise _corrupt(f"{error} in {len(image)} bytes") from None
        # As far as libjpeg came, there are pixels.
        stream.exact, stream.damaged = False, f"invalid after scan {stream.scans}: {error}"
    assert stream.frame is not None
    if stream.damaged is None and not stream.frame.complete:
        stream.damaged = "some of its scans are missing"
    return stream


def jpeg_facts(stream: JpegStream, limits: ImageLimits) -> ImageFacts:
    """Return the facts of a JPEG.

    Raises:
        ImageError: Decoding would exceed a budget.
    """
    frame = stream.frame
    assert frame is not None
    channels = len(frame.components)
    coefficients = 0 if stream.single_scan else frame.coefficient_bytes
    facts = ImageFacts(
        format="jpeg",
        stored_width=frame.width,
        stored_height=frame.height,
        orientation=stream.orientation,
        bit_depth=_BITS,
        channels=channels,
        has_alpha=False,
        scans=stream.scans,
        decoded_bytes=raster_bytes(frame.width, frame.height) + coefficients,
        exact=stream.exact,
        damaged=stream.damaged,
    )
    check_facts(facts, limits)
    return facts


def _corrupt(got: str) -> ImageError:
    return ImageError(expected="a JPEG frame header and a scan", got=got, code="corrupt-image")


def _step(stream: JpegStream, at: int, limits: ImageLimits) -> int | None:
    """Read the next segment; return where it ends, None at the end of the decoded part."""
    image = stream.image
    found = _MARKER.search(image, at)
    if found is None:
        _end_early(stream)
        return None
    start = found.start()
    if image[at:start].strip(b"\xff"):
        stream.exact = False  # some decoders accept no bytes between segments
    marker, body = image[start + 1], start + 4
    if marker == _EOI:
        if not stream.scans:
            raise SegmentError("the end before any pixel")
        return None
    stream.segments += 1
    if stream.segments + stream.tables.defined > limits.max_segments:
        raise ImageError(
            expected=f"at most {limits.max_segments} segments and tables",
            got="more",
            code="unsupported-image",
        )
    length = int.from_bytes(image[start + 2 : body])
    end = start + 2 + length
    if marker == _SOF_LS and not stream.scans:
        raise UnsupportedFrameError("JPEG-LS")
    if marker == _SOI or (marker not in _SKIPPED and marker not in _SOF and marker not in _READ):
        raise SegmentError(f"marker {marker:02x}")
    if body > len(image) or end > len(image):
        _end_early(stream)
        return None
    if marker not in _SKIPPED and length < 2:  # noqa: PLR2004  # the length of the length itself
        raise SegmentError("a segment without length")
    _read_segment(stream, marker, start, max(end, body), limits)
    return _scan_end(stream, max(end, body), limits) if marker == _SOS else max(end, body)


def _end_early(stream: JpegStream) -> None:
    if not stream.scans:
        raise SegmentError("the end")
    stream.exact = False
    stream.damaged = stream.damaged or NO_END


def _read_segment(stream: JpegStream, marker: int, start: int, end: int, limits: ImageLimits) -> None:
    body = stream.image[start + 4 : end]
    if marker in _SKIPPED:
        if not stream.scans:
            _read_application(stream, marker, start, body)
        return
    if marker in _SOF:
        if stream.frame is not None:
            raise SegmentError("a second frame header")
        stream.frame = read_frame(marker, body)
        check_pixels(stream.frame.width, stream.frame.height, limits)
        if not stream.frame.progressive:
            stream.tables.use_standard_huffman()
    elif marker in _TABLE_READERS:
        _TABLE_READERS[marker](stream.tables, body)
    elif marker == _SOS:
        _read_scan(stream, body)
    elif len(body) != 2:  # noqa: PLR2004  # one number
        raise SegmentError("a restart interval of the wrong length")
    stream.parts.append((start, end))


def _read_application(stream: JpegStream, marker: int, start: int, body: bytes) -> None:
    if marker == _APP0 and body.startswith(b"JFIF\x00") and len(body) >= _JFIF_BYTES:
        stream.jfif = True
    elif marker == _APP14 and body.startswith(_ADOBE) and len(body) >= _ADOBE_BYTES:
        stream.adobe = body[_ADOBE_BYTES - 1]
    elif (marker == _APP0 and body.startswith(b"JFIF")) or (marker == _APP14 and body.startswith(_ADOBE)):
        stream.exact = False  # too short: nothing for libjpeg, and Pillow refuses the picture
    elif marker == _APP1:
        _read_exif(stream, start, body)


def _read_exif(stream: JpegStream, start: int, body: bytes) -> None:
    """Read the orientation; what only some viewers read is left out of the normal form."""
    is_exif = body.startswith(_EXIF_START) and len(body) >= len(EXIF_HEADER) + HEAD_BYTES
    if is_exif and not stream.has_exif:
        stream.has_exif = True
        stream.orientation, is_plain = read_orientation(body[len(EXIF_HEADER) :])
        is_plain = is_plain and body.startswith(EXIF_HEADER)  # its last byte is filling, for browsers
        if not is_plain or (stream.orientation != UPRIGHT and not is_exif_in_place(stream.image, start)):
            stream.exact = False
    elif body.startswith(_EXIF_START) or (body.startswith(_XMP) and _XMP_ORIENTATION in body):
        stream.exact = False


def is_exif_in_place(image: bytes, start: int) -> bool:
    """Return True if an EXIF segment is where the exported graph looks: the first, or the one after APP0."""
    length = int.from_bytes(image[4:6])
    is_second = image[2:4] == b"\xff\xe0" and start == 4 + length and length <= MAX_APP0_BYTES
    return start == 2 or is_second  # noqa: PLR2004  # behind the SOI


def _data_end(image: bytes, start: int) -> int:
    """Return where scan data without end marker end: some cameras send zeros behind them."""
    end = start + len(image[start:].rstrip(b"\x00"))
    return end + 1 if image[end - 1] == 0xFF and end < len(image) else end  # noqa: PLR2004  # `FF 00` is data


def _scan_end(stream: JpegStream, start: int, limits: ImageLimits) -> int:
    """Count a scan; return where its data end."""
    stream.scans += 1
    assert stream.frame is not None
    check_scans(stream.scans, stream.frame.width * stream.frame.height, limits)
    found = _NOT_DATA.search(stream.image, start)
    is_damaged = found is not None and not _SCAN_END.match(found.group())
    if found is not None and is_damaged:
        stream.exact, stream.damaged = False, stream.damaged or f"invalid data in scan {stream.scans}"
        found = _SCAN_END.search(stream.image, found.end())
    end = _data_end(stream.image, start) if found is None else found.start()
    if is_damaged:
        _count_damage(stream, start, end)
    if stream.scans == 1 and end - start < stream.least_bytes:
        got = f"image file is truncated: {end - start} bytes cannot be a quarter of its pixels"
        raise ImageError(expected="a whole jpeg", got=got, code="corrupt-image")
    stream.parts.append((start, end))
    return end


def _count_damage(stream: JpegStream, start: int, end: int) -> None:
    """Count the markers in a scan that the normal form replaces, which takes time for each."""
    left = MAX_DAMAGE - stream.damages
    stream.damages += sum(1 for _ in islice(_DAMAGED_DATA.finditer(stream.image, start, end), left + 1))
    if stream.damages > MAX_DAMAGE:
        got = f"more than {MAX_DAMAGE} invalid markers in its data"
        raise ImageError(expected="a whole jpeg", got=got, code="corrupt-image")


def _read_scan(stream: JpegStream, body: bytes) -> None:
    if stream.frame is None:
        raise SegmentError("a scan before the frame header")
    if stream.scans and stream.single_scan:
        raise SegmentError("a scan after the last")
    least_bytes = read_scan(stream.frame, stream.tables, body)
    if not stream.scans:
        stream.least_bytes = least_bytes
        stream.single_scan = not stream.frame.progressive and stream.frame.complete


_TABLE_READERS = {
    _DQT: Tables.read_quantisation,
    _DHT: Tables.read_huffman,
    _DAC: Tables.read_conditioning,
}
_READ = frozenset({*_TABLE_READERS, _DRI, _SOS})


def write_jpeg(stream: JpegStream) -> bytes:
    """Return the normal form: the frame, tables and scans, the orientation, and an EOI."""
    pieces = [b"\xff\xd8"]
    if stream.jfif:
        pieces.append(_segment(_APP0, _JFIF))
    if stream.orientation != UPRIGHT:
        pieces.append(_segment(_APP1, EXIF_HEADER + orientation_only(stream.orientation)))
    if stream.adobe is not None:
        pieces.append(_segment(_APP14, _ADOBE + bytes([0, 100, 0, 0, 0, 0, stream.adobe])))
    in_scan = False
    for start, end in stream.parts:
        part = stream.image[start:end]
        pieces.append(_DAMAGED_DATA.sub(b"\xff\x00", part) if in_scan else part)
        in_scan = not in_scan and part[1:2] == bytes([_SOS])
    return b"".join((*pieces, b"\xff\xd9"))


def _segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2) + body
