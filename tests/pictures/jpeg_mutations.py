"""Mutations of a JPEG. Each raises IndexError or ValueError if an earlier one left nothing to change."""

import random

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


JPEG: tuple[Mutation, ...] = (
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
