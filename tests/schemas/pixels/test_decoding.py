"""Rules of schemas/pixels/decoding.py: what the pixels of a photo are, and what damage is."""

import io
import random
import subprocess
import sys

import pytest
from PIL import Image, ImageChops, ImageStat

from schemas.image import ImageError, inspect_image
from schemas.image.exif import EXIF_HEADER, orientation_only
from schemas.pixels import decode_photo, decoding
from tests.conftest import ROOT
from tests.pictures.odd import ORIENTATIONS, encoded, managed_pictures, odd_pictures, png, scene, segments

PHOTO = encoded(scene((160, 120)), quality=95)


def difference(one: Image.Image, other: Image.Image) -> float:
    assert one.size == other.size
    return max(ImageStat.Stat(ImageChops.difference(one, other)).mean)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_orientation_is_applied_once(kind, orientation):
    """A picture that is stored turned, with its orientation in Exif, decodes to the upright one."""
    upright = scene((64, 48))
    # Pillow's transpositions are their own inverses, but for the two rotations.
    turns = dict(decoding._TURNS)
    turns[6], turns[8] = turns[8], turns[6]
    stored = upright if orientation == 1 else upright.transpose(turns[orientation])
    exif = orientation_only(orientation)
    image = encoded(stored, kind, exif=EXIF_HEADER + exif if kind == "JPEG" else exif)
    decoded = decode_photo(image)
    assert decoded.picture.size == (decoded.facts.width, decoded.facts.height) == upright.size
    assert difference(decoded.picture, upright) < 6


@pytest.mark.parametrize("name", odd_pictures())
def test_pillow_alone_has_the_same_pixels(name):
    """A device has no simplejpeg, and decodes the same, in colour and in grey."""
    image = odd_pictures()[name]
    both = [decode_photo(image, grey=grey) for grey in (False, True)]
    alone = [decode_photo(image, grey=grey, warn=False) for grey in (False, True)]
    assert [one.picture.tobytes() for one in both] == [one.picture.tobytes() for one in alone]


@pytest.mark.parametrize("name", odd_pictures())
def test_pixels_are_the_same_in_strips(name, monkeypatch):
    """Where colours are computed strip by strip, to save memory, none differs and none is lost at an edge."""
    image = odd_pictures()[name]
    whole = [decode_photo(image, grey=grey).picture.tobytes() for grey in (False, True)]
    monkeypatch.setattr(decoding, "_STRIP_PIXELS", 500)
    assert [decode_photo(image, grey=grey).picture.tobytes() for grey in (False, True)] == whole


_PEAK = """
import resource, sys
from pathlib import Path
from schemas.pixels import decode_photo
image = Path(sys.argv[1]).read_bytes()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
decode_photo(image)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize(("mode", "kind"), [("RGBA", "PNG"), ("CMYK", "JPEG")])
def test_g3_decoding_takes_little_more_than_the_pixels_before_and_after(mode, kind, tmp_path):
    """Four bytes a pixel as stored and four as RGB; compositing a whole picture took more than twice that."""
    side = 2400
    (tmp_path / "photo").write_bytes(encoded(Image.new(mode, (side, side), (9, 8, 7, 6)), kind))
    words = [sys.executable, "-c", _PEAK, str(tmp_path / "photo")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 11 * side * side


def test_pillow_alone_notices_that_the_lower_part_is_missing(monkeypatch):
    """An edge without simplejpeg notices missing data by libjpeg's grey, however small it decodes."""
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    whole = encoded(scene((640, 480)))
    half = whole[: len(whole) // 2] + b"\xff\xd9"
    for options in ({}, {"at_least": (72, 64), "grey": True}):
        assert decode_photo(half, **options).lost == "its lower part is grey, as without data"
        assert decode_photo(whole, **options).lost is None


def test_16_bits_are_scaled_and_not_clipped():
    """A thermal picture has more than one level."""
    rows = b"".join(b"\x00" + b"".join((value * 900).to_bytes(2) for value in range(64)) for _ in range(8))
    grey = decode_photo(png(16, 0, rows, (64, 8))).picture.convert("L")
    assert list(grey.crop((0, 0, 64, 1)).tobytes()) == [value * 900 >> 8 for value in range(64)]


@pytest.mark.parametrize("name", dict(managed_pictures()))
def test_colours_are_the_numbers_of_the_file(name):
    """Profile, gamma and chromaticities are ignored, but kept for people who look at the photo."""
    image = dict(managed_pictures())[name]
    plain = encoded(scene(), "JPEG" if name.startswith("jpeg") else "PNG")
    assert inspect_image(image).exact
    assert decode_photo(image).picture.tobytes() == decode_photo(plain).picture.tobytes()


def test_transparent_pixels_are_white():
    """Any colour behind them is ignored."""
    hidden = Image.new("RGBA", (4, 4), (10, 200, 30, 0))
    assert decode_photo(encoded(hidden, "PNG")).picture.getcolors() == [(16, (255, 255, 255))]


def test_a_fraction_is_decoded_if_that_is_enough():
    """Of a JPEG, the decoder delivers 1/2, 1/4 or 1/8, but no less than was asked for; turned, too."""
    large = scene((800, 400))
    assert decode_photo(encoded(large), at_least=(100, 50)).picture.size == (100, 50)
    assert decode_photo(encoded(large), at_least=(101, 50)).picture.size == (200, 100)
    turned = encoded(large, exif=EXIF_HEADER + orientation_only(6))
    assert decode_photo(turned, at_least=(50, 100)).picture.size == (50, 100)
    assert decode_photo(encoded(large), at_least=(5000, 5000)).picture.size == (800, 400)


def half(image: bytes, tail: bytes = b"\xff\xd9") -> bytes:
    """Return a JPEG with half of its data and an end marker, as from a camera that lost packets."""
    start = segments(image)[-1][1]
    return image[: start + (len(image) - start) // 2] + tail


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_half_grey_picture_is_damaged(mode, progressive):
    """It is decoded anyway, at any scale."""
    image = encoded(scene((320, 240), mode), quality=95, progressive=progressive)
    assert decode_photo(image).damaged is None
    for at_least in (None, (40, 30)):
        decoded = decode_photo(half(image), at_least=at_least)
        assert decoded.damaged is not None
        assert decoded.facts.pixels == 320 * 240
    cut = decode_photo(half(image, b""))
    assert "no end marker" in cut.damaged


def test_an_end_marker_alone_is_no_loss():
    """The file is damaged, but libjpeg reports nothing about its pixels."""
    decoded = decode_photo(PHOTO[:-2])
    assert (decoded.damaged is not None, decoded.warning) == (True, None)
    assert decoded.picture.tobytes() == decode_photo(PHOTO).picture.tobytes()


@pytest.mark.parametrize("lost", [1, 2, 5])
def test_a_lost_restart_interval_is_damage(lost):
    """Packets lost between restart markers leave a picture that ends as it should."""
    image = encoded(scene((320, 240)), restart_marker_blocks=4)
    start = segments(image)[-1][1]
    first = image.index(b"\xff\xd1", start)
    last = image.index(bytes([0xFF, 0xD1 + lost]), first)
    assert decode_photo(image).damaged is None
    assert decode_photo(image[:first] + image[last:]).damaged is not None


def test_an_arithmetic_jpeg_may_be_large():
    """Pillow alone decodes one of more than 64 KiB as the others do; by pieces libjpeg could not."""
    tables = b"\xff\xd8\xff\xdb\x00\x43\x00" + bytes([8]) * 64
    frame = b"\xff\xca\x00\x0b\x08\x00\x64\x00\x64\x01\x01\x11\x00"
    # So that a piece of 64 KiB ends a few bytes behind the header of the last scan.
    data = random.Random(1).randbytes(100_000).replace(b"\xff", b"\x7f")[:65_500]
    dc, ac = (b"\xff\xda\x00\x08\x01\x01\x00" + bytes(band) + b"\x00" + data for band in ((0, 0), (1, 63)))
    large = b"".join((tables, frame, dc, ac * 4, b"\xff\xd9"))
    alone = decode_photo(large, warn=False).picture
    assert alone.tobytes() == decode_photo(large).picture.tobytes()


def test_unusual_sampling_is_no_damage():
    """TurboJPEG does not know all sampling factors that libjpeg decodes."""
    image = bytearray(encoded(scene((64, 48)), subsampling="4:4:4"))
    frame = next(start for start, _ in segments(image) if image[start + 1] == 0xC0)
    image[frame + 11] = 0x41  # 4 x 1 of the first component, which then has too few blocks
    decoded = decode_photo(bytes(image))
    assert decoded.picture.size == (64, 48)


@pytest.mark.parametrize("cut", [-20, -30])
def test_a_truncated_png_cannot_be_decoded(cut):
    """Unlike a JPEG, no decoder shows half of it."""
    with pytest.raises(ImageError) as caught:
        decode_photo(encoded(scene(), "PNG")[:cut])
    assert caught.value.code == "corrupt-image"


def test_the_size_is_checked_again_after_opening(monkeypatch):
    """If Pillow ever read another size than was checked, nothing would be decoded."""
    image = encoded(scene(), "PNG")
    real_open = Image.open
    other = encoded(scene((8, 8)), "PNG")
    monkeypatch.setattr(Image, "open", lambda _, **options: real_open(io.BytesIO(other), **options))
    with pytest.raises(ImageError, match="for the check"):
        decode_photo(image)
