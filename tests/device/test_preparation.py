import io
import random

import pytest
from PIL import Image

from device.cameras.base import Frame
from device.preparation import Preparation, PreparedCamera
from tests.conftest import jpeg
from tests.device.conftest import Scripted

RED, GREEN, BLUE = (250, 0, 0), (0, 250, 0), (0, 0, 250)
ORIENTATION = 0x0112


def quartered(size: tuple[int, int]) -> Image.Image:
    """Return a picture: red upper left, green upper right, blue below."""
    picture = Image.new("RGB", size, BLUE)
    half = (size[0] // 2, size[1] // 2)
    picture.paste(RED, (0, 0, *half))
    picture.paste(GREEN, (half[0], 0, size[0], half[1]))
    return picture


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def decoded(image: bytes) -> Image.Image:
    assert image.startswith(b"\xff\xd8")
    with Image.open(io.BytesIO(image), formats=("JPEG",)) as picture:
        picture.load()
        return picture


def is_near(pixel: tuple[int, ...], colour: tuple[int, ...]) -> bool:
    return all(abs(a - b) < 60 for a, b in zip(pixel, colour, strict=True))


async def prepare(image: bytes, rules: Preparation) -> bytes:
    async with PreparedCamera(Scripted(image), rules) as camera:
        return (await camera.capture()).image


def noise(size: tuple[int, int]) -> bytes:
    picture = Image.frombytes("RGB", size, random.Random(1).randbytes(size[0] * size[1] * 3))
    return encoded(picture, "JPEG", quality=95)


@pytest.mark.parametrize("size", [(4056, 3040), (1200, 1600), (64, 48), (1, 1)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
async def test_a_photo_that_an_edge_takes_is_sent_byte_for_byte(size, kind):
    """JPEG and PNG within the limits are not encoded again."""
    image = encoded(quartered(size), kind)
    assert await prepare(image, Preparation()) is image


@pytest.mark.parametrize(
    ("size", "asked", "expected"),
    [
        ((8192, 6144), None, (2048, 1536)),  # a phone of 50 megapixels
        ((4056, 3040), (1280, 960), (1280, 959)),  # a Raspberry Pi's camera
        ((3000, 1000), (1280, 960), (1280, 427)),
        ((1000, 3000), (1280, 960), (427, 1280)),
        ((960, 1280), (1280, 960), (960, 1280)),
    ],
)
async def test_a_large_photo_is_scaled_down(size, asked, expected):
    """A photo with too many pixels is scaled down, the longer side to the longer one asked for."""
    image = encoded(quartered(size), "JPEG")
    assert decoded(await prepare(image, Preparation(asked))).size == expected


async def test_a_photo_of_too_many_bytes_is_made_smaller():
    """Noise, which JPEG cannot compress, ends below the limit anyway."""
    image = noise((1600, 1200))
    for limit in (1_000_000, 50_000):
        rules = Preparation(max_bytes=limit)
        assert len(image) > limit
        assert len(await prepare(image, rules)) <= limit


@pytest.mark.parametrize("orientation", range(1, 9))
async def test_a_photo_that_is_scaled_is_upright(orientation):
    """For each orientation of the camera, red is upper left, and no orientation is left to apply."""
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }.get(orientation)
    upright = quartered((2400, 1200))
    stored = upright if turn is None else upright.transpose(turn)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    sent = decoded(await prepare(encoded(stored, "JPEG", exif=exif), Preparation((1600, 1200))))
    assert sent.size == (1600, 800)
    assert is_near(sent.getpixel((10, 10)), RED)
    assert is_near(sent.getpixel((1590, 10)), GREEN)
    assert is_near(sent.getpixel((10, 790)), BLUE)
    assert ORIENTATION not in sent.getexif()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("WEBP", {}),
        ("AVIF", {}),
        ("TIFF", {}),
        ("BMP", {}),
        ("GIF", {}),
        ("HEIF", {}),
        ("GIF", {"save_all": True, "append_images": [Image.new("RGB", (320, 240))]}),
    ],
)
async def test_other_formats_become_jpeg(kind, options):
    """Pictures that no edge reads are converted; of an animation the first frame is sent."""
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    image = encoded(quartered((320, 240)), kind, **options)
    sent = decoded(await prepare(image, Preparation()))
    assert sent.size == (320, 240)
    assert is_near(sent.getpixel((10, 10)), RED)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK"])
async def test_every_kind_of_pixels_becomes_jpeg(mode):
    """Grey, palettes, transparency and print colours are converted."""
    kind = "TIFF" if mode == "CMYK" else "PNG"
    image = encoded(quartered((2000, 1500)).convert(mode), kind)
    assert decoded(await prepare(image, Preparation((1600, 1200)))).size == (1600, 1200)


@pytest.mark.parametrize(
    "image", [b"", b"no picture", b"\xff\xd8 broken", b"BM broken", b"RIFF....WEBP", b"II*\0x"]
)
@pytest.mark.parametrize("crop", [None, (0.0, 0.0, 0.5, 0.5)])
async def test_what_cannot_be_decoded_is_sent_as_it_is(image, crop):
    """The edge rejects it with a reason; it is not marked as cropped."""
    rules = Preparation(crop=crop)
    async with PreparedCamera(Scripted(image), rules) as camera:
        assert await camera.capture() == Frame(image, "scripted")


@pytest.mark.parametrize(
    ("crop", "size", "colour"),
    [
        ((0.0, 0.0, 0.5, 0.5), (160, 120), RED),
        ((0.5, 0.0, 1.0, 0.5), (160, 120), GREEN),
        ((0.25, 0.6, 0.75, 0.9), (160, 72), BLUE),
        ((0.1, 0.1, 0.1001, 0.1001), (1, 1), RED),
    ],
)
async def test_a_crop_is_cut_out_of_the_upright_picture(crop, size, colour):
    """The four numbers are shares of width and height."""
    sent = decoded(await prepare(encoded(quartered((320, 240)), "JPEG", quality=95), Preparation(crop=crop)))
    assert sent.size == size
    assert is_near(sent.getpixel((size[0] // 2, size[1] // 2)), colour)


async def test_a_crop_of_a_large_picture_keeps_its_pixels():
    """A small part of a picture of 12 megapixels is as sharp as the camera took it."""
    rules = Preparation((1600, 1200), crop=(0.0, 0.0, 0.4, 0.4))
    assert decoded(await prepare(encoded(quartered((4000, 3000)), "JPEG"), rules)).size == (1600, 1200)


async def test_a_prepared_frame_says_what_it_shows():
    """The frame keeps its source and has the crop that was applied."""
    crop = (0.0, 0.0, 0.5, 0.5)
    async with PreparedCamera(Scripted(jpeg(1)), Preparation(crop=crop)) as camera:
        assert camera.live
        frame = await camera.capture()
    assert (frame.crop, frame.source) == (crop, "scripted")
    assert decoded(frame.image).size == (80, 60)
