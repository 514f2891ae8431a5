"""Rules of schemas/image/jpeg.py: the markers as libjpeg walks them, and the budgets."""

import pytest

from schemas.image import DEFAULT_LIMITS, ImageError, ImageLimits, inspect_image, normal_form
from schemas.image.jpeg import MAX_APP0_BYTES, MAX_DAMAGE
from tests.pictures.odd import encoded, scene, segments

PLAIN = encoded(scene())
PROGRESSIVE = encoded(scene(), progressive=True)
EOI = b"\xff\xd9"


def at_segment(image: bytes, marker: int, insertion: bytes) -> bytes:
    start = next(start for start, _ in segments(image) if image[start + 1] == marker)
    return image[:start] + insertion + image[start:]


def refusal(image: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> ImageError:
    with pytest.raises(ImageError) as caught:
        inspect_image(image, limits)
    return caught.value


@pytest.mark.parametrize(
    "stray", [b"\x00", b"\x12\x34", b"\xff\x00", b"\xff\x00\x00\x08junkjunk", b"\x00" * 500]
)
@pytest.mark.parametrize("marker", [0xE0, 0xDB, 0xC0, 0xC4, 0xDA])
def test_bytes_between_segments_are_skipped(stray, marker):
    """Bytes that belong to no segment, `FF 00` too, change nothing but that there is a normal form."""
    facts = inspect_image(at_segment(PLAIN, marker, stray))
    assert (facts.width, facts.height, facts.exact, facts.damaged) == (*scene().size, False, None)
    assert normal_form(at_segment(PLAIN, marker, stray)) == normal_form(PLAIN)


def test_fill_bytes_are_part_of_the_next_marker():
    """Any number of FF may come before a marker; every decoder skips them."""
    assert inspect_image(at_segment(PLAIN, 0xC0, b"\xff" * 9)).exact


@pytest.mark.parametrize(("marker", "body"), [(0xE0, b"JFIF\x00"), (0xE0, b"JFIF"), (0xEE, b"Adobe")])
def test_a_colour_segment_that_is_too_short_is_left_out(marker, body):
    """It means nothing to libjpeg, and viewers show the picture; Pillow refuses it."""
    segment = bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2) + body
    image = PLAIN[:2] + segment + PLAIN[2:]
    assert not inspect_image(image).exact
    assert normal_form(image) == normal_form(PLAIN)


def test_a_decoy_behind_ff_00_is_not_the_frame_header():
    """The size is that of the frame which libjpeg decodes, with another one hidden at any place."""
    frame = next((start, end) for start, end in segments(PLAIN) if PLAIN[start + 1] == 0xC0)
    decoy = PLAIN[frame[0] : frame[0] + 5] + b"\x00\x01\x00\x01" + PLAIN[frame[0] + 9 : frame[1]]
    real = PLAIN[2 : frame[1]]
    comment = b"\xff\xfe" + (2 + len(decoy)).to_bytes(2) + decoy
    hidden = b"\xff\xd8\xff\x00" + (len(real) + 6).to_bytes(2) + real + comment + PLAIN[frame[1] :]
    assert inspect_image(hidden).pixels == inspect_image(PLAIN).pixels


@pytest.mark.parametrize("tail", [b"", bytes(600), b"\xff", b"\xff\xd3", b"\x00\xff\x00\x00"])
def test_a_missing_end_is_added(tail):
    """A JPEG without end marker is damaged and has one in its normal form."""
    cut = PLAIN[:-2] + tail
    facts = inspect_image(cut)
    assert (facts.exact, facts.damaged) == (False, "image file is truncated: no end marker")
    assert normal_form(cut).endswith(EOI)
    assert inspect_image(normal_form(cut)).damaged is None


@pytest.mark.parametrize("tail", [bytes(600), b"rubbish", PLAIN, b"\xff\xc0\x00\x03"])
def test_bytes_behind_the_end_do_not_matter(tail):
    """Phones put videos and further pictures behind the end marker."""
    facts = inspect_image(PLAIN + tail)
    assert (facts.exact, facts.damaged) == (True, None)


@pytest.mark.parametrize("second", [PLAIN, PLAIN[2:]])
def test_a_second_frame_header_is_refused(second):
    """Another SOI or SOF before the pixels would let the check and a decoder take different sizes."""
    assert refusal(at_segment(PLAIN, 0xC4, second)).code == "corrupt-image"


def test_what_follows_the_pixels_wrongly_is_left_out():
    """A picture without end before another, or a scan too many: the first picture is decoded."""
    for image in (PLAIN[:-2] + PLAIN, PLAIN[:-2] + PLAIN[segments(PLAIN)[-1][0] :]):
        facts = inspect_image(image)
        assert facts.pixels == inspect_image(PLAIN).pixels
        assert facts.damaged is not None
        assert inspect_image(normal_form(image)).exact


def test_scans_are_limited_before_decoding():
    """Ten scans as usual pass; thousands are refused, fewer of them the larger the picture is."""
    start = segments(PROGRESSIVE)[-1][0]
    assert inspect_image(PROGRESSIVE).scans == 10
    many = PROGRESSIVE[:-2] + PROGRESSIVE[start:-2] * 30 + EOI
    assert "at most 100 scans" in str(refusal(many))
    assert "at most 2 scans" in str(refusal(PROGRESSIVE, ImageLimits(max_scan_pixels=2 * 40 * 24)))


def test_segments_and_tables_are_limited():
    """A million empty segments or tables are refused after some thousand, in milliseconds."""
    for insertion in (b"\xff\xfe\x00\x02" * 100_000, (b"\xff\xc4\x00\x13\x00" + bytes(16)) * 50_000):
        assert "at most 2000 segments" in str(refusal(at_segment(PLAIN, 0xC0, insertion)))


def test_a_progressive_jpeg_costs_its_coefficients():
    """The memory of decoding is in the facts, and limited."""
    plain, progressive = inspect_image(PLAIN), inspect_image(PROGRESSIVE)
    assert plain.decoded_bytes == 40 * 24 * 3
    assert progressive.decoded_bytes > 2 * plain.decoded_bytes
    assert refusal(PROGRESSIVE, ImageLimits(max_decoded_bytes=5000)).code == "too-many-pixels"


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [
        (4, 12, "12 bits"),
        (9, 2, "wrong length"),
        (1, 0xC3, "lossless"),
        (1, 0xC5, "lossless"),
        (1, 0xF7, "JPEG-LS"),
        (5, 0, None),
    ],
)
def test_other_frames_are_named(at, value, words):
    """Twelve bits, lossless and hierarchical files are refused by name, before a decoder fails on them."""
    frame = next(start for start, _ in segments(PLAIN) if PLAIN[start + 1] == 0xC0)
    changed = bytearray(PLAIN)
    changed[frame + at] = value
    if words is not None:
        assert words in str(refusal(bytes(changed)))


@pytest.mark.parametrize(
    "table",
    [
        b"\x00" + bytes([3]) + bytes(15) + b"\x00\x01\x02",  # three codes of one bit
        b"\x00" + bytes([2]) + bytes(15) + b"\x00\x01",  # the second is all ones
        b"\x00" + bytes([1]) + bytes(15) + b"\x10",  # a difference of 16 bits
        b"\x05" + bytes([1]) + bytes(15) + b"\x00",  # table 5
        b"\x00" + bytes([255] * 16),
        b"\x00" * 5,
    ],
)
def test_a_huffman_table_that_libjpeg_refuses(table):
    """It is refused where a scan would use it."""
    segment = b"\xff\xc4" + (len(table) + 2).to_bytes(2) + table
    assert refusal(at_segment(PLAIN, 0xDA, segment)).code == "corrupt-image"


def test_missing_tables():
    """Without quantisation table nothing can be decoded; standard Huffman tables may be left out."""
    parts = segments(PLAIN)

    def without(marker: int) -> bytes:
        kept = [PLAIN[a:b] for a, b in parts if PLAIN[a + 1] != marker]
        return PLAIN[:2] + b"".join(kept) + PLAIN[parts[-1][1] :]

    assert refusal(without(0xDB)).code == "corrupt-image"
    assert inspect_image(without(0xC4)).pixels


def test_invalid_data_in_a_scan_is_damage():
    """A marker that libjpeg does not know would end all decoding: the normal form has data instead."""
    start = segments(PLAIN)[-1][1]
    image = PLAIN[: start + 40] + b"\xff\x42" + PLAIN[start + 40 :]
    facts = inspect_image(image)
    assert (facts.exact, facts.damaged) == (False, "invalid data in scan 1")
    assert b"\xff\x42" not in normal_form(image)[start:]


def test_damage_is_limited():
    """Each invalid marker takes time to replace: a photo with nothing else in it is refused."""
    start = segments(PLAIN)[-1][1]
    few, many = (
        PLAIN[: start + 40] + b"\xff\x01" * count + PLAIN[start + 40 :]
        for count in (MAX_DAMAGE, 3 * MAX_DAMAGE)
    )
    assert inspect_image(few).damaged == "invalid data in scan 1"
    with pytest.raises(ImageError, match="invalid markers") as caught:
        inspect_image(many)
    assert caught.value.code == "corrupt-image"


def test_orientation_is_read_wherever_it_is_and_written_where_the_graph_looks():
    """EXIF behind other segments, or behind a large APP0, moves to the front of the normal form."""
    exif = encoded(
        scene(),
        exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06"
        + bytes(6),
    )
    start, end = next((start, end) for start, end in segments(exif) if exif[start + 1] == 0xE1)
    moved = at_segment(exif[:start] + exif[end:], 0xDA, exif[start:end])
    large = b"\xff\xe0" + (MAX_APP0_BYTES + 1).to_bytes(2) + bytes(MAX_APP0_BYTES - 1)
    assert inspect_image(exif).exact
    for image in (moved, exif[:2] + large + exif[start:end] + exif[end:]):
        facts = inspect_image(image)
        assert (facts.orientation, facts.width, facts.exact) == (6, facts.stored_height, False)
        again = inspect_image(normal_form(image))
        assert (again.orientation, again.exact) == (6, True)
