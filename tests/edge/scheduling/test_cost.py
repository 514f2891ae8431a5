"""What decoding a photo costs is known before, and photos of like cost share a call."""

import io

import pytest
from PIL import Image

from bench.hostile import slow_jpeg
from edge.scheduling.cost import EXPENSIVE_MS, MAX_CALL_MS, CallRoom, decode_ms, is_cheap, is_expensive
from schemas.image import ImageFacts, inspect_image
from tests.nodes import photo


def facts(kind: str, megapixels: float, *, scans: int = 1, channels: int = 3, bits: int = 8) -> ImageFacts:
    width = round(megapixels * 1000)
    return ImageFacts(
        kind,
        width,
        1000,
        1,
        bits,
        channels,
        has_alpha=False,
        scans=scans,
        decoded_bytes=0,
        exact=True,
        damaged=None,
    )


def jpeg_of(size: tuple[int, int]) -> bytes:
    out = io.BytesIO()
    Image.new("L", size).save(out, "JPEG")
    return out.getvalue()


@pytest.mark.parametrize(
    ("image", "size_bytes", "expensive"),
    [
        (facts("jpeg", 0.3), 40_000, False),
        (facts("jpeg", 12), 2_000_000, False),
        (facts("jpeg", 0.3, scans=10), 40_000, False),
        (facts("jpeg", 16, channels=4), 750_000, True),
        (facts("jpeg", 12, scans=10), 2_000_000, True),
        (facts("jpeg", 16, scans=20, channels=1), 60_000, True),
        (facts("jpeg", 3, scans=100, channels=1), 60_000, True),
        (facts("jpeg", 16, scans=20, channels=4), 3_000_000, True),
        (facts("png", 0.3), 900_000, False),
        (facts("png", 16), 50_000, True),
        (facts("png", 4, channels=4, bits=16), 3_000_000, True),
        (facts("png", 4, channels=1, bits=1), 100_000, False),
    ],
)
def test_expensive_photos_are_known_by_their_facts(image, size_bytes, expensive):
    """Many scans, many pixels of a PNG, and both together; a phone's 12 megapixels are usual."""
    assert is_expensive(decode_ms(image, size_bytes)) == expensive


@pytest.mark.parametrize(
    ("costs_ms", "cheap"),
    [([2.9], True), ([], True), ([1.0, 1.0, 1.0], True), ([2.9, 2.9], False), ([4.1], False), ([0.0], False)],
)
def test_photos_are_cheap_together(costs_ms, cheap):
    """What the event loop decodes itself is limited for all photos of a call, and each of them is known."""
    assert is_cheap(costs_ms) == cheap


def test_a_usual_photo_is_cheap_and_a_large_one_is_not():
    """A camera's 640 x 480 pixels are decoded by the event loop; a phone's photo is given to a thread."""
    assert is_cheap([decode_ms(inspect_image(jpeg_of((640, 480))), 40_000)])
    assert not is_cheap([decode_ms(inspect_image(jpeg_of((1280, 960))), 40_000)])


def test_a_long_side_costs_more_than_its_pixels():
    """Scaling works through 224 values a channel for each row or column; a usual shape has more pixels."""
    for size in ((20_000, 1), (1, 20_000)):
        image = jpeg_of(size)
        assert is_expensive(decode_ms(inspect_image(image), len(image)))
    usual = jpeg_of((640, 480))
    assert decode_ms(inspect_image(usual), len(usual)) < 5


def test_a_hostile_jpeg_is_expensive_and_its_small_sibling_is_not():
    """By the facts of real files: the scans are counted by the check, not believed."""
    for side, expensive in ((3990, True), (400, False)):
        image = slow_jpeg(14, side)
        assert is_expensive(decode_ms(inspect_image(image), len(image))) == expensive


def test_sixteen_bits_of_four_channels_count_as_much_as_they_take():
    """Measured: about seven times a JPEG of the same size, with the filter that takes libpng longest."""
    jpeg, png = facts("jpeg", 16), facts("png", 16, channels=4, bits=16)
    assert decode_ms(png, 950_000) > 7 * decode_ms(jpeg, 3_000_000)


def test_cost_grows_with_all_that_a_decoder_works_through():
    """Pixels, scans, channels, bits and bytes."""
    usual = decode_ms(facts("jpeg", 1), 100_000)
    assert decode_ms(facts("jpeg", 2), 100_000) > usual
    assert decode_ms(facts("jpeg", 1, scans=2), 100_000) > usual
    assert decode_ms(facts("jpeg", 1), 1_000_000) > usual
    png = decode_ms(facts("png", 1), 100_000)
    assert decode_ms(facts("png", 1, bits=16), 100_000) > png
    assert decode_ms(facts("png", 1, channels=4), 100_000) > png
    assert decode_ms(inspect_image(photo(1)), len(photo(1))) < 1


@pytest.mark.parametrize(
    ("costs", "fitting"),
    [
        ([1, 2, 5, 9, 10, 40], [1, 2, 5, 9, 10, 40]),
        ([1, 41], [1]),
        ([80, 1, 80, 80], [80, 80]),
        ([75] * 4, [75, 75]),
        ([500, 500], [500]),
        ([1, EXPENSIVE_MS + 1, 1], [1, 1]),
        ([30] * 10, [30] * 6),
    ],
)
def test_a_call_has_photos_of_like_cost(costs, fitting):
    """Within four times, below ten milliseconds any; several together stay within the limit of a call."""
    room, taken = CallRoom(), []
    for cost_ms in costs:
        if room.fits(cost_ms):
            room.take(cost_ms)
            taken.append(cost_ms)
    assert taken == fitting
    assert sum(taken) <= MAX_CALL_MS or len(taken) == 1


def test_no_expensive_photo_fits_while_others_are_decoded():
    """Also not as the first one."""
    assert not CallRoom(expensive=False).fits(EXPENSIVE_MS + 1)
    assert CallRoom(expensive=False).fits(EXPENSIVE_MS)
