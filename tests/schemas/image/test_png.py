"""Rules of schemas/image/png.py: the chunks as libpng walks them, and the budgets."""

import random
import zlib

import pytest

from schemas.image import DEFAULT_LIMITS, ImageError, ImageLimits, inspect_image, normal_form
from schemas.image.png_pixels import chunk_bytes
from schemas.image.signatures import PNG_SIGNATURE
from schemas.pixels import decode_photo
from tests.pictures.odd import chunks, encoded, scene

PLAIN = encoded(scene(), "PNG")
PALETTE = encoded(scene().quantize(8), "PNG")


def with_chunk(image: bytes, place: int, kind: bytes, data: bytes, *, valid: bool = True) -> bytes:
    chunk = chunk_bytes(kind, data)
    parts = chunks(image)
    parts.insert(place, chunk if valid else chunk[:-1] + bytes([chunk[-1] ^ 1]))
    return PNG_SIGNATURE + b"".join(parts)


def refusal(image: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> ImageError:
    with pytest.raises(ImageError) as caught:
        inspect_image(image, limits)
    return caught.value


def test_a_second_header_or_palette_is_refused():
    """Pillow would take the last header, libpng none: what was checked must be what is decoded."""
    header = (20_000).to_bytes(4) * 2 + b"\x01\x00\x00\x00\x00"
    assert refusal(with_chunk(PLAIN, 1, b"IHDR", header)).code == "corrupt-image"
    behind = with_chunk(PLAIN, 2, b"IHDR", header)
    assert (inspect_image(behind).pixels, normal_form(behind)) == (40 * 24, normal_form(PLAIN))
    assert "second palette" in str(refusal(with_chunk(PALETTE, 2, b"PLTE", bytes(24))))


@pytest.mark.parametrize("kind", [b"tEXt", b"abcd", b"gAMA", b"tRNS"])
def test_a_wrong_checksum_of_an_ancillary_chunk_does_not_matter(kind):
    """Viewers warn and show the picture; it is accepted, and decoded without that chunk."""
    image = with_chunk(PLAIN, 1, kind, b"a\x00text", valid=False)
    facts = inspect_image(image)
    assert (facts.exact, facts.damaged, facts.has_alpha) == (False, None, False)
    assert normal_form(image) == normal_form(PLAIN)


@pytest.mark.parametrize("place", [0, 1])
def test_a_wrong_checksum_of_a_critical_chunk_is_refused(place):
    """Header and pixels must be right."""
    parts = chunks(PLAIN)
    parts[place] = parts[place][:-1] + bytes([parts[place][-1] ^ 1])
    assert refusal(PNG_SIGNATURE + b"".join(parts)).code == "corrupt-image"


@pytest.mark.parametrize(
    "tail", [b"", b"\x00" * 40, b"\x00\x00\x00\x00IEN", b"\xff" * 40, b"HTTP/1.1 200 OK\r\n" * 3]
)
def test_a_missing_end_is_added(tail):
    """Without IEND a picture is damaged, with anything in its place; the normal form has it."""
    cut = PLAIN[:-12] + tail
    assert inspect_image(cut).damaged == "no end chunk"
    assert normal_form(cut) == normal_form(PLAIN)


@pytest.mark.parametrize("left", range(4))
def test_the_checksum_of_the_pixels_may_be_cut_off(left):
    """All pixels are there, and viewers show them; without their own last byte they are not."""
    cut = PLAIN[: -16 + left]
    assert inspect_image(cut).damaged == "no end chunk"
    assert decode_photo(cut).picture.tobytes() == decode_photo(PLAIN).picture.tobytes()
    assert refusal(PLAIN[:-17]).code == "corrupt-image"


def test_text_is_limited_as_it_is_decompressed():
    """A kilobyte of text can become megabytes in libpng, and there may be a thousand such chunks."""
    start, hexed = b"Comment\x00\x00", random.Random(1).randbytes(750_000).hex().encode()
    text = start + zlib.compress(hexed)
    once = with_chunk(PLAIN, 1, b"zTXt", text)
    assert not inspect_image(once).exact  # Pillow refuses a picture with so much text
    assert inspect_image(with_chunk(PLAIN, 1, b"zTXt", start + zlib.compress(hexed[:600_000]))).exact
    thrice = with_chunk(with_chunk(once, 1, b"zTXt", text), 1, b"zTXt", text)
    assert "4194304 bytes of text" in str(refusal(thrice))
    profile = with_chunk(PLAIN, 1, b"iCCP", text)
    assert not inspect_image(profile).exact
    assert "of text" in str(refusal(with_chunk(with_chunk(profile, 1, b"zTXt", text), 1, b"zTXt", text)))
    # Much out of little: of a file of a few bytes, decompressing would take longer than all the rest.
    for kind, before in ((b"zTXt", start), (b"iCCP", start), (b"iTXt", b"Comment\x00\x01\x00\x00\x00")):
        bomb = before + zlib.compress(bytes(300_000), 9)
        assert "of text" in str(refusal(with_chunk(PLAIN, 1, kind, bomb)))
        assert inspect_image(with_chunk(PLAIN, 1, kind, before + zlib.compress(bytes(200_000), 9))).exact
    broken = start + zlib.compress(bytes(200_000), 9)[:-4] + b"\x00\x00\x00\x01"
    assert "of text" in str(refusal(with_chunk(with_chunk(PLAIN, 1, b"zTXt", broken), 1, b"zTXt", broken)))


def test_data_behind_the_pixels_are_limited():
    """They can expand a thousand times, and no decoder reads them: a few are left alone."""
    header, data, end = chunks(PLAIN)
    pixels = zlib.decompress(data[8:-4])
    some = PNG_SIGNATURE + header + chunk_bytes(b"IDAT", zlib.compress(pixels + bytes(1_000_000))) + end
    assert decode_photo(some).picture.tobytes() == decode_photo(PLAIN).picture.tobytes()
    more = PNG_SIGNATURE + header + chunk_bytes(b"IDAT", zlib.compress(pixels + bytes(1_500_000))) + end
    with pytest.raises(ImageError, match="behind its pixels") as caught:
        decode_photo(more)
    assert caught.value.code == "unsupported-image"


def test_what_readers_of_png_differ_about_is_left_out():
    """An animation, even a malformed one, is its first picture; a palette of a grey picture is none."""
    grey = encoded(scene(mode="L"), "PNG")
    for chunk in ((b"iCCP", b"p\x00\x01" + zlib.compress(b"")), (b"zTXt", b"no end of the keyword")):
        assert not inspect_image(with_chunk(PLAIN, 1, *chunk)).exact  # an unknown compression
    frame = b"fcTL", bytes(26)
    for image, chunk in (
        (PLAIN, frame),
        (PLAIN, (b"fdAT", b"")),
        (PLAIN, (b"bKGD", bytes(5))),
        (grey, (b"PLTE", b"abc")),
    ):
        odd = with_chunk(image, 1, *chunk, valid=chunk[0] != b"PLTE")
        assert not inspect_image(odd).exact
        assert normal_form(odd) == normal_form(image)
    assert inspect_image(with_chunk(PLAIN, 1, b"bKGD", bytes(6))).exact


@pytest.mark.parametrize("kind", [b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"cICP"])
@pytest.mark.parametrize("place", [1, 2])
def test_a_chunk_of_the_wrong_length_is_left_out(kind, place):
    """Readers differ about one that is too short: some show the picture, Pillow refuses it."""
    image = with_chunk(PLAIN, place, kind, b"\x00\x01")
    assert not inspect_image(image).exact
    assert normal_form(image) == normal_form(PLAIN)


def test_a_png_of_an_iphone_app_is_named():
    """Xcode writes a chunk before the header that no viewer knows."""
    assert "Xcode" in str(refusal(PNG_SIGNATURE + chunk_bytes(b"CgBI", bytes(4)) + PLAIN[8:]))


def test_chunks_and_frames_are_limited():
    """Empty chunks, and frames of an animation, which is otherwise its first picture."""
    many = chunk_bytes(b"IDAT", b"") * 2_000
    assert "chunks" in str(refusal(PLAIN[:33] + many + PLAIN[33:]))
    large = chunk_bytes(b"abcd", bytes(1_024)) * 2_000
    assert inspect_image(PLAIN[:33] + large + PLAIN[33:]).pixels
    before = PNG_SIGNATURE + chunk_bytes(b"abcd", b"") * 20_000 + PLAIN[len(PNG_SIGNATURE) :]
    assert refusal(before).code == "corrupt-image"
    animated = with_chunk(PLAIN, 1, b"acTL", bytes([0, 0, 0, 2, 0, 0, 0, 0]))
    assert inspect_image(animated).pixels == inspect_image(PLAIN).pixels
    frames = chunk_bytes(b"fcTL", bytes(26)) * 2_000
    assert "frames" in str(refusal(PLAIN[:33] + frames + PLAIN[33:]))


@pytest.mark.parametrize(
    "header",
    [b"\x03\x00\x00\x00\x00", b"\x08\x05\x00\x00\x00", b"\x10\x03\x00\x00\x00", b"\x08\x02\x00\x00\x02"],
)
def test_an_invalid_header_is_refused(header):
    """Depth, colour type and interlacing have to fit each other."""
    data = (4).to_bytes(4) * 2 + header
    image = PNG_SIGNATURE + chunk_bytes(b"IHDR", data) + PLAIN[33:]
    assert refusal(image).code == "corrupt-image"


def test_unknown_critical_chunks_are_refused_and_ancillary_ones_are_not():
    """As in the specification."""
    assert refusal(with_chunk(PLAIN, 1, b"ABCD", b"")).code == "corrupt-image"
    assert inspect_image(with_chunk(PLAIN, 1, b"abCd", b"")).exact


def test_a_chunk_of_a_reserved_type_is_left_out():
    """Old versions of libpng skip it, newer ones end with an error."""
    image = with_chunk(PLAIN, 1, b"abcd", b"")
    assert not inspect_image(image).exact
    assert normal_form(image) == normal_form(PLAIN)


@pytest.mark.parametrize("flags", [0x00, 0xC0])
def test_a_window_that_is_too_small_is_enlarged(flags):
    """A decoder that inflates row by row would end with an error where one with all data does not."""
    parts = chunks(PLAIN)
    (place,) = (at for at, part in enumerate(parts) if part[4:8] == b"IDAT")
    head = 0x0800 | flags
    data = (head + -head % 31).to_bytes(2) + parts[place][10:-4]
    parts[place] = chunk_bytes(b"IDAT", data)
    image = PNG_SIGNATURE + b"".join(parts)
    assert not inspect_image(image).exact
    assert decode_photo(normal_form(image)).picture.tobytes() == decode_photo(PLAIN).picture.tobytes()
    (pixels,) = (part for part in chunks(normal_form(image)) if part[4:8] == b"IDAT")
    assert (pixels[8], int.from_bytes(pixels[8:10]) % 31, pixels[9] & 0xC0) == (0x78, 0, flags)
    assert inspect_image(normal_form(image)).exact
    assert refusal(PNG_SIGNATURE + PLAIN[33:]).code == "corrupt-image"


def test_the_orientation_is_where_the_graph_looks():
    """An eXIf chunk behind others moves behind the header in the normal form."""
    exif = b"MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x08" + bytes(6)
    first = with_chunk(PLAIN, 1, b"eXIf", exif)
    last = with_chunk(PLAIN, 2, b"eXIf", exif)
    assert [inspect_image(image).orientation for image in (first, last)] == [8, 8]
    assert [inspect_image(image).exact for image in (first, last)] == [True, False]
    assert inspect_image(normal_form(last)).exact
