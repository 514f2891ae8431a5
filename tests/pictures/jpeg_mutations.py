"""Mutations of a JPEG. Each raises IndexError or ValueError if an earlier one left nothing to change."""

import random
from typing import Literal

from tests.pictures.common_mutations import Mutation, anywhere, append, flip_bits, truncate
from tests.pictures.odd import segments

_EOI = b"\xff\xd9"


def flip_data(image: bytes, draw: random.Random) -> bytes:
    """Change bytes of the first scan."""
    changed, (_, start) = bytearray(image), segments(image)[-1]
    for _ in range(draw.choice((1, 3))):
        changed[draw.randrange(start, len(image))] = draw.choice((0, 0xFF, draw.randrange(256)))
    return bytes(changed)


def _between(image: bytes, draw: random.Random) -> int:
    return draw.choice(segments(image))[0]


def insert_stray(image: bytes, draw: random.Random) -> bytes:
    """Insert bytes between segments."""
    stray = draw.choice(
        (b"\x00", b"\x00\x01", b"\xff\x00", b"\xff\xff", draw.randbytes(8), b"\xff\x01", b"\xff\xd3")
    )
    at = _between(image, draw)
    return image[:at] + stray + image[at:]


def insert_marker(image: bytes, draw: random.Random) -> bytes:
    """Insert a marker with or without length, anywhere."""
    body = draw.choice((b"", b"\x00\x02", b"\x00\x00", b"\x00\x04ab", b"\x40\x00"))
    at = draw.choice((_between(image, draw), anywhere(image, draw)))
    return image[:at] + bytes([0xFF, draw.randrange(1, 255)]) + body + image[at:]


def insert_decoy(image: bytes, draw: random.Random) -> bytes:
    """Insert `FF 00` that hides the frame header from a reader that takes it for a segment."""
    parts = segments(image)
    frame = next((start, end) for start, end in parts if image[start + 1] in {0xC0, 0xC1, 0xC2})
    small = image[frame[0] : frame[0] + 5] + b"\x00\x01\x00\x01" + image[frame[0] + 9 : frame[1]]
    real = image[2 : frame[1]]
    comment = b"\xff\xfe" + (2 + len(small)).to_bytes(2) + small
    return image[:2] + b"\xff\x00" + (len(real) + 6).to_bytes(2) + real + comment + image[frame[1] :]


def repeat_segment(image: bytes, draw: random.Random) -> bytes:
    """Repeat a segment there or elsewhere."""
    start, end = draw.choice(segments(image))
    at = _between(image, draw)
    return image[:at] + image[start:end] * draw.choice((1, 2)) + image[at:]


def drop_segment(image: bytes, draw: random.Random) -> bytes:
    """Leave out a segment."""
    start, end = draw.choice(segments(image))
    return image[:start] + image[end:]


def swap_segments(image: bytes, draw: random.Random) -> bytes:
    """Exchange a segment and the next."""
    parts = segments(image)
    place = draw.randrange(len(parts) - 1)
    (start, middle), (_, end) = parts[place : place + 2]
    return image[:start] + image[middle:end] + image[start:middle] + image[end:]


def change_segment(image: bytes, draw: random.Random) -> bytes:
    """Change a byte of a segment's header or content."""
    start, end = draw.choice(segments(image))
    changed = bytearray(image)
    changed[draw.randrange(start + 1, end)] = draw.choice(
        (0, 1, 2, 3, 4, 8, 0x11, 0x22, 0xFF, draw.randrange(256))
    )
    return bytes(changed)


def change_frame(image: bytes, draw: random.Random) -> bytes:
    """Change a byte of the frame or scan header."""
    parts = [
        (start, end) for start, end in segments(image) if image[start + 1] in {0xC0, 0xC2, 0xC9, 0xCA, 0xDA}
    ]
    start, end = draw.choice(parts)
    changed = bytearray(image)
    changed[draw.randrange(start + 1, end)] = draw.choice(
        (0, 1, 2, 3, 0x11, 0x12, 0x21, 0x22, 0x41, 63, draw.randrange(256))
    )
    return bytes(changed)


def insert_application(image: bytes, draw: random.Random) -> bytes:
    """Insert an APP segment that is malformed, or means something else to each decoder."""
    body = draw.choice(
        (
            b"JFIF\x00",
            b"JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00",
            b"Adobe",
            b"Adobe\x00\x64\x00\x00\x00\x00" + bytes([draw.randrange(4)]),
            b"Exif\x00\x00",
            b"Exif\x00\x00II*\x00" + draw.randbytes(40),
            b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00"
            + bytes([draw.randrange(10)])
            + bytes(6),
            b"MPF\x00" + draw.randbytes(40),
            b"ICC_PROFILE\x00" + draw.randbytes(20),
            b"http://ns.adobe.com/xap/1.0/\x00<x:xmpmeta tiff:Orientation='6'/>",
            b"Photoshop 3.0\x008BIM" + draw.randbytes(20),
            draw.randbytes(draw.randrange(30)),
        )
    )
    at = _between(image, draw)
    marker = draw.choice((0xE0, 0xE1, 0xE1, 0xE2, 0xED, 0xEE, 0xFE))
    return image[:at] + bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2) + body + image[at:]


def repeat_scan(image: bytes, draw: random.Random) -> bytes:
    """Repeat the rest of the file from the first scan on."""
    start = segments(image)[-1][0]
    return image[:-2] + image[start:] * draw.choice((1, 2, 30))


def insert_picture(image: bytes, draw: random.Random) -> bytes:
    """Insert a whole picture, in a segment or bare."""
    at = _between(image, draw)
    return image[:at] + draw.choice((b"", b"\xff\xe1" + (len(image) + 2).to_bytes(2))) + image + image[at:]


def insert_fill(image: bytes, draw: random.Random) -> bytes:
    """Insert fill bytes before a marker, few or many."""
    at = _between(image, draw)
    return image[:at] + b"\xff" * draw.choice((1, 3, 5000)) + image[at:]


def _frame(image: bytes) -> int:
    return next(
        start
        for start, _ in segments(image)
        if image[start + 1] in range(0xC0, 0xCF) and image[start + 1] not in {0xC4, 0xC8, 0xCC}
    )


def change_kind(image: bytes, draw: random.Random) -> bytes:
    """Declare the frame lossless, hierarchical, arithmetic or of JPEG-LS, or has other bits a sample."""
    at, changed = _frame(image), bytearray(image)
    if draw.random() < 0.7:
        changed[at + 1] = draw.choice((*range(0xC0, 0xD0), 0xF7))
    else:
        changed[at + 4] = draw.choice((1, 2, 7, 9, 12, 16, 255))
    return bytes(changed)


def defer_height(image: bytes, draw: random.Random) -> bytes:
    """Give the number of lines behind the first scan (DNL), instead of in the frame header or again."""
    at, changed = _frame(image), bytearray(image)
    height = changed[at + 5 : at + 7]
    if draw.random() < 0.7:
        changed[at + 5 : at + 7] = bytes(2)
    lines = draw.choice((bytes(height), b"\x00\x01", b"\xff\xff", b"\x00\x00"))
    return bytes(changed[:-2] + b"\xff\xdc\x00\x04" + lines + _EOI)


def change_restarts(image: bytes, draw: random.Random) -> bytes:
    """Insert, remove or exchange restart markers, or set another interval."""
    _, start = segments(image)[-1]
    markers = [
        at for at in range(start, len(image) - 1) if image[at] == 0xFF and image[at + 1] in range(0xD0, 0xD8)
    ]
    kind = draw.randrange(4)
    if kind == 0:
        interval = draw.choice((0, 1, 2, 7, 65_535)).to_bytes(2)
        at = _between(image, draw)
        return image[:at] + b"\xff\xdd\x00\x04" + interval + image[at:]
    if kind == 1:
        at = draw.randrange(start, len(image) - 1)
        return image[:at] + bytes([0xFF, 0xD0 + draw.randrange(8)]) * draw.choice((1, 2, 9)) + image[at:]
    at = draw.choice(markers)
    other = b"" if kind == 2 else bytes([0xFF, 0xD0 + draw.randrange(8)])
    return image[:at] + other + image[at + 2 :]


def insert_exif(image: bytes, draw: random.Random) -> bytes:
    """Insert EXIF data whose directories refer to themselves, end early, or give the orientation oddly."""
    body = b"Exif\x00\x00" + odd_exif(draw)
    at = draw.choice((2, _between(image, draw)))
    return image[:at] + b"\xff\xe1" + (len(body) + 2).to_bytes(2) + body + image[at:]


def insert_profile(image: bytes, draw: random.Random) -> bytes:
    """Insert a colour profile in many or large segments, some of them missing or twice."""
    count = draw.choice((1, 3, 255))
    size = draw.choice((0, 10, 65_519)) if count < 255 else 10
    numbers = [draw.choice((at, at, at, 0, 1, 255)) for at in range(1, count + 1)]
    profile = b"".join(
        b"\xff\xe2" + (16 + size).to_bytes(2) + b"ICC_PROFILE\x00" + bytes([number, count]) + bytes(size)
        for number in numbers
    )
    at = _between(image, draw)
    return image[:at] + profile + image[at:]


def cut_at_segment(image: bytes, draw: random.Random) -> bytes:
    """End at the beginning or end of a segment, or within its length."""
    start, end = draw.choice(segments(image))
    return image[: draw.choice((start, start + 1, start + 2, start + 3, start + 4, end))] + draw.choice(
        (b"", _EOI)
    )


def odd_exif(draw: random.Random) -> bytes:
    """Return malformed EXIF data, from the byte order mark on."""
    order: Literal["little", "big"] = draw.choice(("little", "big"))
    tag, kind, value = (
        draw.choice((0x0112, 0x8769, 0x8825, 0xA005, 0x0201)),
        draw.choice((3, 3, 4, 1, 7, 13)),
        draw.choice((0, 1, 6, 8, 9, 65_535)),
    )

    def number(value: int, size: int) -> bytes:
        return value.to_bytes(size, order)

    entry = (
        number(tag, 2)
        + number(kind, 2)
        + number(draw.choice((0, 1, 2, 1 << 31)), 4)
        + number(value, 2)
        + bytes(2)
    )
    count, following = draw.choice((0, 1, 2, 65_535)), draw.choice((0, 8, 20, 1 << 31))
    start = draw.choice((8, 8, 0, 2, 7, 9, 10_000, (1 << 32) - 1))
    mark = b"II" if order == "little" else b"MM"
    return (
        mark
        + number(draw.choice((42, 42, 43, 0)), 2)
        + number(start, 4)
        + number(count, 2)
        + entry * draw.choice((1, 2, 600))
        + number(following, 4)
    )


JPEG: tuple[Mutation, ...] = (
    insert_fill,
    change_kind,
    defer_height,
    change_restarts,
    insert_exif,
    insert_exif,
    insert_profile,
    cut_at_segment,
    truncate,
    append,
    flip_bits,
    flip_data,
    flip_data,
    insert_stray,
    insert_marker,
    insert_decoy,
    repeat_segment,
    drop_segment,
    swap_segments,
    change_segment,
    change_frame,
    insert_application,
    repeat_scan,
    insert_picture,
)
