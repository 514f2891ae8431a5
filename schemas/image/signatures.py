"""Name the format of a file by its first bytes, so that an error can suggest what to do.

Source: the formats' specifications, as collected in `file`'s magic database.
"""

import re

from schemas.image.facts import ImageError

JPEG_SIGNATURE = b"\xff\xd8"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_STARTS = (
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "BigTIFF"),
    (b"MM\x00+", "BigTIFF"),
    (b"IIRO", "ORF raw"),
    (b"IIU\x00", "RW2 raw"),
    (b"FUJIFILMCCD-RAW", "RAF raw"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"II\xbc", "JPEG XR"),
    (b"\x8aMNG", "MNG"),
    (b"\x8bJNG", "JNG"),
    (b"\x00\x00\x01\x00", "ICO"),
    (b"8BPS", "PSD"),
    (b"%PDF", "PDF"),
    (b"qoif", "QOI"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"v/1\x01", "OpenEXR"),
    (b"DDS ", "DDS"),
    (b"gimp xcf", "XCF"),
    (b"\x89PNG", "PNG damaged by a transfer as text"),
    (b"\x1aE\xdf\xa3", "Matroska video"),
    (b"FLV\x01", "Flash video"),
    (b"\x00\x00\x01\xba", "MPEG video"),
    (b"\x00\x00\x01\xb3", "MPEG video"),
    (b"\x00\x00\x00\x01", "H.264 or H.265 video"),
    *[(b"\x00\x00\x01" + unit, "H.264 or H.265 video") for unit in (b"\x67", b"\x27", b"\x09", b"\x40")],
    (b"%!PS", "PostScript"),
    (b"PK\x03\x04", "ZIP"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!", "RAR"),
    (b"\x28\xb5\x2f\xfd", "Zstandard"),
    (b"\xc3\xbf\xc3\x98", "JPEG damaged by a transfer as text"),  # FF D8 as UTF-8
    (b"\xef\xbf\xbd\xef\xbf\xbd", "JPEG damaged by a transfer as text"),  # replaced by U+FFFD
    (b"\xc2\x89PNG", "PNG damaged by a transfer as text"),
    (b"\xef\xbf\xbdPNG", "PNG damaged by a transfer as text"),
)
_BOX_BRANDS = {  # ISO base media: the brand behind `ftyp`
    b"avif": "AVIF",
    b"avis": "AVIF",
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"heim": "HEIC",
    b"heis": "HEIC",
    b"hevc": "HEIC",
    b"hevx": "HEIC",
    b"crx ": "CR3 raw",
}
_GENERAL_BRANDS = frozenset({b"mif1", b"msf1"})  # any codec: the compatible brands name it
# Text: in small letters, also behind a byte order mark and white space.
_TEXTS = (
    (b"<svg", "SVG"),
    (b"<!doctype svg", "SVG"),
    (b"<?xml", "XML"),
    (b"<!doctype", "HTML"),
    (b"<html", "HTML"),
    (b"<head", "HTML"),
    (b"data:image/", "data URL"),
    (b'"data:image/', "data URL"),
    (b"/9j/", "base64 text"),  # FF D8 FF
    (b'"/9j/', "base64 text"),
    (b"ivborw0kggo", "base64 text"),  # the PNG signature
    (b'"ivborw0kggo', "base64 text"),
    (b"ffd8ff", "hexadecimal text"),
    (b"0xffd8", "hexadecimal text"),
    (b"ff d8 ff", "hexadecimal text"),
    (b"89504e47", "hexadecimal text"),
    (b"[255,216,", "list of numbers"),
    (b"[255, 216,", "list of numbers"),
    (b"[137,80,", "list of numbers"),
    (b"[137, 80,", "list of numbers"),
)
_TAG = re.compile(rb"<[a-z!?/]")
_TEXT_BYTES = 64
_MARK = b"\xef\xbb\xbf"
_TEXT_FIRST = frozenset(b'<"[/0fFiIdD8 \t\r\n\xef')
_MSGPACK = frozenset((*range(0x80, 0xA0), *range(0xDC, 0xE0)))  # maps and lists
# A camera's answer with its head, for example. Further in, another file may have a picture as a preview.
_BEFORE_BYTES = 1024
_PICTURE = re.compile(rb"\xff\xd8\xff[\xc0-\xfe]|\x89PNG\r\n\x1a\n")
_ANY_START = tuple(start for start, _ in _STARTS)
_RIFF_FORMS = {b"WEBP": "WebP", b"AVI ": "AVI video"}
_PNM = frozenset(b"1234567Ff")
_ENCODED_AS_TEXT = frozenset({"data URL", "base64 text", "hexadecimal text", "list of numbers"})
_TO_SEND_AS_IT_IS = (" damaged by a transfer as text", " other bytes before it")
_TS_SYNC, _TS_PACKET = 0x47, 188
_QUOTED_BYTES = 8
_BRANDS_BYTES = 256


def format_name(content: bytes) -> str | None:
    """Return the name of a file format that is neither JPEG nor PNG, None if it is not known."""
    if content[4:8] == b"ftyp":
        return _brand_name(content)
    if content[:4] in {b"RIFF", b"RIFX"}:
        return _RIFF_FORMS.get(content[8:12], "RIFF")
    if content[:1] == b"P" and content[1:2].strip(bytes(_PNM)) == b"" and content[2:3].isspace():
        return "PNM"
    if content.startswith(_ANY_START):
        return next(name for start, name in _STARTS if content.startswith(start))
    if not content or content[0] in _MSGPACK:  # as of most messages, which are asked for every photo
        return None
    return _text_name(content) or _name_behind(content)


def _text_name(content: bytes) -> str | None:
    if content[0] not in _TEXT_FIRST:
        return None
    text = content[:_TEXT_BYTES].removeprefix(_MARK).lstrip().lower()
    found = next((name for start, name in _TEXTS if text.startswith(start)), None)
    return "XML or HTML" if found is None and _TAG.match(text) else found


def _name_behind(content: bytes) -> str | None:
    """Return the name of content that is a picture with something before it."""
    if content[0] == _TS_SYNC and content[_TS_PACKET::_TS_PACKET][:2] == bytes([_TS_SYNC]) * 2:
        return "MPEG transport stream"
    if content[:_BEFORE_BYTES].removeprefix(_MARK).lstrip().startswith(b"{"):
        return None  # a message in JSON
    if (found := _PICTURE.search(content, 0, _BEFORE_BYTES)) is None:
        return None
    kind, count = "JPEG" if found[0].startswith(JPEG_SIGNATURE) else "PNG", found.start()
    return f"{kind} with {count} other bytes before it"


def _brand_name(content: bytes) -> str:
    """Return the format of an ISO base media file by the brands in its first box."""
    if content[8:12] not in _GENERAL_BRANDS:
        return _BOX_BRANDS.get(content[8:12], "MP4 video")
    end = min(int.from_bytes(content[:4]), len(content), _BRANDS_BYTES)
    compatible = [content[at : at + 4] for at in range(16, end - 3, 4)]
    return next((_BOX_BRANDS[brand] for brand in compatible if brand in _BOX_BRANDS), "HEIF")


def unsupported(content: bytes) -> ImageError:
    """Return the error for content that is neither JPEG nor PNG."""
    if not content:
        return ImageError(expected="JPEG or PNG", got="an empty file", code="unsupported-image")
    name = format_name(content)
    hint = (
        "send the bytes of the file itself"
        if name in _ENCODED_AS_TEXT or (name or "").endswith(_TO_SEND_AS_IT_IS)
        else "convert it to JPEG or PNG, or set the camera to JPEG"
    )
    start = content[:_QUOTED_BYTES].hex(" ")
    got = f"{len(content)} bytes starting with {start}" if name is None else f"{name} ({len(content)} bytes)"
    return ImageError(
        expected="JPEG or PNG", got=got, hint=None if name is None else hint, code="unsupported-image"
    )
