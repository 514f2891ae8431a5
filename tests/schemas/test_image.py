import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from schemas.image import ImageError, read_header


def encoded(kind: str, size: tuple[int, int], **options: object) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, "teal").save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"exif": b"Exif\x00\x00" + bytes(5000)}])
def test_a_jpeg_header(options):
    """Format and size are read from baseline, progressive and EXIF-laden JPEGs."""
    header = read_header(encoded("JPEG", (321, 123), **options))
    assert (header.format, header.width, header.height, header.pixels) == ("jpeg", 321, 123, 321 * 123)


def test_a_png_header():
    """Format and size are read from a PNG."""
    header = read_header(encoded("PNG", (321, 123)))
    assert (header.format, header.width, header.height) == ("png", 321, 123)


@pytest.mark.parametrize("image", [b"hello", b"", b"GIF89a" + bytes(50), b"BM" + bytes(50), b"RIFF0000WEBP"])
def test_other_formats_are_unsupported(image):
    """The format is detected from the content; only JPEG and PNG are accepted."""
    with pytest.raises(ImageError) as caught:
        read_header(image)
    assert caught.value.code == "unsupported-image"


@given(st.binary(max_size=300), st.sampled_from([b"\xff\xd8", b"\xff\xd8\xff\xc0", b"\x89PNG\r\n\x1a\n"]))
def test_broken_headers_raise_nothing_else(tail, start):
    """After a valid start, any bytes give a header or an ImageError."""
    try:
        header = read_header(start + tail)
    except ImageError as error:
        assert error.code == "corrupt-image"  # noqa: PT017
    else:
        assert header.pixels > 0


@given(st.integers(0, 400))
def test_a_truncated_jpeg_gives_its_header_or_an_error(length):
    """A JPEG cut at any length gives the right size, or an ImageError if the header is cut off."""
    whole = encoded("JPEG", (64, 48))
    try:
        header = read_header(whole[:length])
    except ImageError:
        return
    assert (header.width, header.height) == (64, 48)
