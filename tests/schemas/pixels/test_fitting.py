"""Rules of schemas/pixels/fitting.py: a photo of any camera becomes one that an edge takes."""

import importlib
import io
import math
import random
import struct

import pytest
from PIL import Image

from schemas.image import ImageError, ImageLimits, inspect_image, normal_form
from schemas.image.exif import EXIF_HEADER, orientation_only
from schemas.pixels import MAX_SIDE_PX, SOURCE_LIMITS, decode_photo, fit_photo, open_photo
from tests.pictures.exif import grey_tiff
from tests.pictures.odd import encoded, odd_pictures, scene

LIMIT = 60_000


def noise(size: tuple[int, int]) -> Image.Image:
    return Image.frombytes("RGB", size, random.Random(1).randbytes(size[0] * size[1] * 3))


@pytest.mark.parametrize("name", odd_pictures())
def test_a_small_photo_is_unchanged(name):
    """Byte for byte, with any colours, unless decoders differ about it."""
    image = odd_pictures()[name]
    assert fit_photo(image) == (image if inspect_image(image).exact else normal_form(image))


def test_a_photo_that_decoders_read_differently_gets_its_normal_form():
    """So that the edge receives what it would decode."""
    cut = encoded(scene())[:-2]
    assert fit_photo(cut) == normal_form(cut)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_large_photo_is_scaled_down(kind):
    """In bytes and in pixels; upright, without metadata."""
    fitted = fit_photo(encoded(noise((700, 400)), kind), LIMIT, 600)
    facts = inspect_image(fitted, ImageLimits(max_bytes=LIMIT))
    assert facts.width <= 600
    assert facts.width / facts.height == pytest.approx(700 / 400, rel=0.02)
    turned = encoded(noise((700, 400)), exif=EXIF_HEADER + orientation_only(6))
    facts = inspect_image(fit_photo(turned, LIMIT, 600))
    assert (facts.width < facts.height, facts.orientation) == (True, 1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_what_no_decoder_reads_costs_no_pixels(kind):
    """A phone's photo with a video behind it, or with large metadata, is sent with all its pixels."""
    image = encoded(scene(), kind)
    for large in (image + bytes(2 * LIMIT), image + b"\x00\x00\x00\x18ftypmp42" + bytes(LIMIT)):
        assert fit_photo(large, LIMIT) == normal_form(image)


def test_a_photo_of_many_megapixels():
    """A phone's; the limit of pixels alone scales it too."""
    large = encoded(scene((4700, 3600)), quality=60)
    facts = inspect_image(fit_photo(large))
    assert max(facts.width, facts.height) == MAX_SIDE_PX


@pytest.mark.parametrize("kind", ["WEBP", "TIFF", "BMP", "GIF", "AVIF"])
def test_other_formats_are_converted(kind):
    """Their first picture, upright."""
    facts = inspect_image(fit_photo(encoded(scene(), kind)))
    assert (facts.format, facts.width, facts.height) == ("jpeg", *scene().size)


def test_a_photo_of_several_pictures_is_its_first_one():
    """MPO, as from phones and stereo cameras, is a JPEG with others after its end."""
    first, out = scene((640, 480)), io.BytesIO()
    first.save(out, "MPO", save_all=True, append_images=[Image.new("RGB", (640, 480), "blue")])
    image = out.getvalue()
    with Image.open(io.BytesIO(image)) as opened:
        assert (opened.format, opened.n_frames) == ("MPO", 2)
    assert inspect_image(image).format == "jpeg"
    assert fit_photo(image) == image
    scaled = fit_photo(image, len(image) // 2, 320)
    with Image.open(io.BytesIO(scaled)) as opened:
        assert (opened.format, opened.size) == ("JPEG", (320, 240))
        wanted, got = (picture.convert("L").resize((8, 8)) for picture in (first, opened))
        differences = [abs(a - b) for a, b in zip(wanted.tobytes(), got.tobytes(), strict=True)]
        assert max(differences) < 12


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I", "F"])
def test_a_thermal_tiff_is_no_white_picture(mode):
    """More than 8 bits are scaled, as in a PNG."""
    values = Image.linear_gradient("L").resize((64, 48)).convert("I").point(lambda value: value * 250)
    deep = values.convert("I;16").convert(mode) if mode != "I;16B" else values.convert("I;16B")
    pixels = decode_photo(fit_photo(encoded(deep, "TIFF"))).picture.convert("L")
    low, high = pixels.getextrema()
    assert (low < 10, 230 < high <= 255) == (True, True)


@pytest.mark.parametrize(
    ("bits", "white_is_zero"), [(12, False), (16, False), (16, True), (32, False), (32, True)]
)
def test_levels_of_a_tiff_are_as_it_says(bits, white_is_zero):
    """12 bits do not look like dark 16 bits, and where zero is white the picture is not inverted."""
    most = (1 << min(bits, 16)) - 1
    row = [most * column // 63 for column in range(64)]
    if bits == 12:
        packed = b"".join((row[at] << 12 | row[at + 1]).to_bytes(3) for at in range(0, 64, 2))
    else:
        packed = struct.pack(f"<64{'H' if bits == 16 else 'f'}", *row)
    image = grey_tiff((64, 8), bits, packed * 8, white_is_zero=white_is_zero)
    levels = decode_photo(fit_photo(image)).picture.convert("L").crop((0, 4, 64, 5)).tobytes()
    wanted = range(255, -1, -1) if white_is_zero else range(256)
    assert [abs(level - wanted[255 * at // 63]) < 4 for at, level in enumerate(levels)] == [True] * 64


def test_a_float_picture_may_have_gaps():
    """NaN values, as thermal cameras write them, are black, and the others have all levels."""
    values = [math.nan, math.inf, -math.inf, 20.0, 30.0, 25.0, math.nan, 20.0]
    image = grey_tiff((8, 8), 32, struct.pack("<8f", *values) * 8)
    levels = open_photo(image).picture.convert("L").crop((0, 0, 8, 1)).tobytes()
    assert list(levels) == [0, 255, 0, 0, 255, 127, 0, 0]


@pytest.mark.parametrize("alpha", [0, 255])
def test_a_bmp_whose_fourth_byte_is_not_used_is_no_white_picture(alpha):
    """Programs leave it zero, and viewers show the colours."""
    pixels = b"".join(bytes([200, 30, 10 * column, alpha]) for column in range(8)) * 8
    masks = b"".join(mask.to_bytes(4, "little") for mask in (0xFF0000, 0xFF00, 0xFF, 0xFF000000))
    head = struct.pack("<IiiHHIIiiII", 108, 8, 8, 1, 32, 3, len(pixels), 0, 0, 0, 0) + masks
    offset = 14 + 108
    image = (
        struct.pack("<2sIHHI", b"BM", offset + len(pixels), 0, 0, offset) + head.ljust(108, b"\0") + pixels
    )
    assert open_photo(image).picture.getpixel((7, 0)) == (70, 30, 200)


def test_heic_is_converted():
    """If the package pillow-heif is there; otherwise the error explains how to install it."""
    try:
        heif = importlib.import_module("pillow_heif")
    except ModuleNotFoundError:
        with pytest.raises(ImageError, match=r"pip install .*\[heic\]"):
            fit_photo(b"\x00\x00\x00\x18ftypheic" + bytes(100))
        return
    out = io.BytesIO()
    heif.from_pillow(scene((64, 48))).save(out)
    assert inspect_image(fit_photo(out.getvalue())).format == "jpeg"


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (b"no photo", "expected JPEG or PNG"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 junk", "a whole WEBP"),
        (encoded(scene((300, 200)), "WEBP")[:-200], "a whole WEBP"),
        (encoded(scene((300, 200)), "GIF")[:-2000], "a whole GIF"),
        (encoded(scene((300, 200)), "TIFF")[:-2000], "a whole TIFF"),
        (encoded(scene((300, 200)), "BMP")[:-2000], "a whole BMP"),
        (encoded(scene((300, 200)), "AVIF")[:-500], "a whole AVIF"),
        (encoded(scene(), "GIF")[:6] + b"\xff" * 4 + encoded(scene(), "GIF")[10:], "at most 80000000 pixels"),
        (encoded(scene(), "TIFF", tiffinfo={50706: b"\x01\x04\x00\x00"}), "raw file"),
        (encoded(scene(), "TIFF", tiffinfo={254: 1}), "raw file"),
        (encoded(scene(), "PNG")[:60], "a whole png"),
    ],
)
def test_what_cannot_be_fitted(image, words):
    """Unreadable, cut and enormous files, and previews of raw files; each is named."""
    with pytest.raises(ImageError, match=words):
        fit_photo(image, LIMIT)


def test_the_source_is_limited():
    """By its header, before it is decoded."""
    small = ImageLimits(max_pixels=100)
    with pytest.raises(ImageError, match="at most 100 pixels") as caught:
        fit_photo(encoded(scene()), source=small)
    assert caught.value.code == "too-many-pixels"
    with pytest.raises(ImageError, match="pixels"):
        fit_photo(encoded(Image.new("1", (9000, 9000)), "TIFF"), source=SOURCE_LIMITS)


def test_a_damaged_photo_is_refused_where_it_must_be_whole():
    """At import; a device sends what is left."""
    image = encoded(noise((700, 400)))
    damaged = image[: len(image) // 2] + b"\xff\xd9"
    assert inspect_image(fit_photo(damaged, LIMIT))
    with pytest.raises(ImageError, match="a whole jpeg"):
        fit_photo(damaged, LIMIT, whole=True)
    assert fit_photo(image[:-2], LIMIT, whole=True)  # without its end marker, all pixels are there
