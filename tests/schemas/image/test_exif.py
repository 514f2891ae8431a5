"""Rules of schemas/image/exif.py: one orientation of a photo, for every reader of what is stored."""

import pytest

from schemas.image import inspect_image, normal_form
from schemas.image.exif import EXIF_HEADER, read_orientation
from schemas.image.png_pixels import chunk_bytes
from tests.pictures.exif import ORIENTATION, SHORT, exif_data, tiff
from tests.pictures.odd import chunks, encoded, scene, segments

JPEG = encoded(scene())
PNG = encoded(scene(), "PNG")
SIX = tiff([(ORIENTATION, SHORT, 1, 6)])
THREE = tiff([(ORIENTATION, SHORT, 1, 3)])
XMP = b'http://ns.adobe.com/xap/1.0/\x00<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def jpeg_with(*bodies: bytes) -> bytes:
    """Return a JPEG with APP1 segments behind the first segment."""
    at = segments(JPEG)[0][1]
    parts = [b"\xff\xe1" + (len(body) + 2).to_bytes(2) + body for body in bodies]
    return b"".join((JPEG[:at], *parts, JPEG[at:]))


def png_with(*inserted: tuple[bytes, bytes]) -> bytes:
    """Return a PNG with chunks behind the header."""
    header, *rest = chunks(PNG)
    return b"".join((PNG[:8], header, *(chunk_bytes(*one) for one in inserted), *rest))


def assert_orientation(image: bytes, orientation: int, *, exact: bool) -> None:
    """Check what is read of a picture, and that every reader finds the same in its normal form."""
    facts = inspect_image(image)
    assert (facts.orientation, facts.exact) == (orientation, exact)
    plain = normal_form(image)
    again = inspect_image(plain)
    assert (again.orientation, again.exact) == (orientation, True)
    assert plain.count(b"Exif") + plain.count(b"eXIf") == (orientation != 1)


@pytest.mark.parametrize("name", exif_data())
def test_what_viewers_differ_about_is_left_out(name):
    """What browsers read counts; a photo that another viewer could turn otherwise gets its normal form."""
    data, orientation, plain = exif_data()[name]
    assert read_orientation(data) == (orientation, plain)
    assert_orientation(jpeg_with(EXIF_HEADER + data), orientation, exact=plain)
    assert_orientation(png_with((b"eXIf", data)), orientation, exact=plain)


@pytest.mark.parametrize(
    ("bodies", "orientation"),
    [
        ((EXIF_HEADER + SIX, EXIF_HEADER + THREE), 6),
        ((EXIF_HEADER, EXIF_HEADER + SIX), 6),
        ((EXIF_HEADER + b"rubbish, and more", EXIF_HEADER + SIX), 1),
        ((b"Exif\x00\xff" + SIX,), 6),
        ((XMP,), 1),
        ((EXIF_HEADER + SIX, XMP), 6),
    ],
)
def test_one_orientation_is_left_of_several(bodies, orientation):
    """Of two EXIF segments the first with data counts, and XMP does not."""
    assert_orientation(jpeg_with(*bodies), orientation, exact=False)


@pytest.mark.parametrize(
    ("inserted", "orientation"),
    [
        (((b"eXIf", SIX), (b"eXIf", THREE)), 6),
        (((b"eXIf", EXIF_HEADER + SIX),), 1),
        (((b"tEXt", b"Raw profile type exif\x00\nexif\n 32\n" + (EXIF_HEADER + SIX).hex().encode()),), 1),
        (((b"iTXt", b"XML:com.adobe.xmp\x00\x00\x00\x00\x00" + XMP[29:]),), 1),
        (((b"eXIf", bytes(70_000)),), 1),
    ],
)
def test_a_png_tells_its_orientation_once(inserted, orientation):
    """The first eXIf chunk counts; Pillow would take the last, or text that other programs write."""
    assert_orientation(png_with(*inserted), orientation, exact=False)


def test_usual_metadata_change_nothing():
    """XMP without an orientation, and text."""
    assert inspect_image(jpeg_with(EXIF_HEADER + SIX, XMP.replace(b"tiff:Orientation", b"x"))).exact
    assert inspect_image(png_with((b"tEXt", b"Comment\x00a photo"))).exact
