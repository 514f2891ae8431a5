"""Rules of schemas/image/signatures.py: other formats are named, with what to do."""

import re

import pytest

from schemas.codec import decode
from schemas.image import ImageError, format_name, inspect_image
from schemas.topics import PHOTO

JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF"
FILES = {
    "GIF": b"GIF89a" + bytes(20),
    "BMP": b"BM" + bytes(20),
    "TIFF": b"II*\x00" + bytes(20),
    "WebP": b"RIFF\x00\x00\x00\x00WEBPVP8 ",
    "HEIC": b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00",
    "HEIF": b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00",
    "AVIF": b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00",
    "AVIF (": b"\x00\x00\x00\x1cftypmif1\x00\x00\x00\x00mif1avifmiaf\x00\x00\x00\x00meta",
    "HEIC (": b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1heic\x00\x00\x00\x00avif",
    "MP4 video": b"\x00\x00\x00\x18ftypisom\x00\x00\x00\x00",
    "JPEG XL": b"\xff\x0a" + bytes(20),
    "JPEG 2000": b"\x00\x00\x00\x0cjP  \r\n\x87\n",
    "PNM": b"P6\n4 4\n255\n",
    "PDF": b"%PDF-1.7",
    "HTML": b"<!DOCTYPE html><html>",
    "SVG": b'\xef\xbb\xbf\n<SVG xmlns="http://www.w3.org/2000/svg"/>',
    "XML": b" \r\n<?xml version='1.0'?>",
    "H.264 or H.265 video": b"\x00\x00\x00\x01\x67\x42",
    "bzip2": b"BZh91AY&SY",
    "PNG damaged by a transfer as text": b"\x89PNG\n\x1a\n\x00\x00\x00\x0dIHDR",
    "base64 text": b"/9j/4AAQSkZJRg==",
    "data URL": b"data:image/jpeg;base64,/9j/4AAQ",
    "data URL (": b"DATA:image/png;base64,iVBORw0KGgo",
    "base64 text (": b'\r\n"iVBORw0KGgoAAAANSUhEUg=="',
    "hexadecimal text": b"FFD8FFE000104A46",
    "hexadecimal text (": b"0xffd8ffe0",
    "list of numbers": b"[255, 216, 255, 224]",
    "JPEG damaged by a transfer as text": b"\xc3\xbf\xc3\x98\xc3\xbf",
    "JPEG damaged by a transfer as text (": b"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd",
    "JPEG with 1 other bytes before it": b"\n" + JPEG,
    "JPEG with 3 other bytes before it": b"\xef\xbb\xbf" + JPEG,
    "JPEG with 2 other bytes before it": b"\r\n" + JPEG,
    "JPEG with 1 other bytes before it (": b"\xff" + JPEG,
    "JPEG with 44 other bytes before it": b"HTTP/1.0 200 OK\r\nContent-Type: image/jpeg\r\n\r\n"[:44] + JPEG,
    "PNG with 36 other bytes before it": b"--frame\r\nContent-Type: image/png\r\n\r\n" + b"\x89PNG\r\n\x1a\n",
    "XML or HTML": b"<ResponseStatus><statusCode>4</statusCode></ResponseStatus>",
    "SVG (": b"<!DOCTYPE svg PUBLIC>",
    "XML or HTML (": b"<!-- an error -->\n<html>",
    "H.264 or H.265 video (": b"\x00\x00\x01\x67\x42",
    "MPEG transport stream": (b"G" + bytes(187)) * 3,
}


@pytest.mark.parametrize("name", FILES)
def test_other_formats_are_named(name):
    """The error names the format and what to do."""
    with pytest.raises(
        ImageError, match=f"expected JPEG or PNG, got {re.escape(name.removesuffix(' ('))}.*; (convert|send)"
    ) as caught:
        inspect_image(FILES[name])
    assert caught.value.code == "unsupported-image"


@pytest.mark.parametrize("name", FILES)
def test_a_bare_file_of_another_format_is_a_photo(name):
    """So that its sender learns the format, and not that it is not a message."""
    photo = decode(PHOTO, FILES[name], {"node": "edge-1", "device": "pi-1"})
    assert photo.image == FILES[name]


@pytest.mark.parametrize(
    "message",
    [
        b'{"photo_id": 1}',
        b"\x81\xa8photo_id\x01",
        b"\xde\x00\x01\xa1v\x01",
        b"",
        b"hello",
        b"\n{}",
        b"<",
        b"< 5",
        b'\xef\xbb\xbf\n{"image": "' + JPEG + b'"}',
        b"\x81\xa5image\xc4\x0a" + JPEG,
        bytes(2000) + JPEG,
    ],
)
def test_messages_are_no_files(message):
    """JSON and msgpack maps never look like one of the formats."""
    assert format_name(message) is None
