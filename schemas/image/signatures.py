"""Name the format of a file by its first bytes, so that an error can say what to do.

Source: the formats' specifications, as collected in `file`'s magic database.
"""

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
    (b"%!PS", "PostScript"),
    (b"PK\x03\x04", "ZIP"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!", "RAR"),
    (b"data:image/", "data URL"),
    (b"/9j/", "base64 text"),  # FF D8 FF
    (b"iVBORw0KGgo", "base64 text"),  # the PNG signature
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
_GENERAL_BRANDS = frozenset({b"mif1", b"msf1"})  # any codec: the compatible brands tell which
# Text: in any case, also behind a byte order mark and white space.
_MARKUP = (
    (b"<svg", "SVG"),
    (b"<?xml", "XML"),
    (b"<!doctype", "HTML"),
    (b"<html", "HTML"),
    (b"<head", "HTML"),
)
_MARKUP_BYTES = 64
_BEFORE_MARKUP = (b"<", b"\xef\xbb\xbf", b" ", b"\t", b"\r", b"\n")
_ANY_START = tuple(start for start, _ in _STARTS)
_RIFF_FORMS = {b"WEBP": "WebP", b"AVI ": "AVI video"}
_PNM = frozenset(b"1234567Ff")
_ENCODED_AS_TEXT = frozenset({"data URL", "base64 text", "PNG damaged by a transfer as text"})
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
    if content.startswith(_BEFORE_MARKUP):
        text = content[:_MARKUP_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
        return next((name for start, name in _MARKUP if text.startswith(start)), None)
    if not content.startswith(_ANY_START):  # as of each message, which is asked for every photo
        return None
    return next(name for start, name in _STARTS if content.startswith(start))


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
        if name in _ENCODED_AS_TEXT
        else "convert it to JPEG or PNG, or set the camera to JPEG"
    )
    start = content[:_QUOTED_BYTES].hex(" ")
    got = f"{len(content)} bytes starting with {start}" if name is None else f"{name} ({len(content)} bytes)"
    return ImageError(
        expected="JPEG or PNG", got=got, hint=None if name is None else hint, code="unsupported-image"
    )
