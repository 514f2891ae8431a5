"""Mutations of a PNG. Each raises its own kind of error if an earlier one left nothing to change."""

import random
import zlib

from schemas.image.png_pixels import chunk_bytes
from schemas.image.signatures import PNG_SIGNATURE
from tests.pictures.common_mutations import Mutation, append, flip_bits, truncate
from tests.pictures.jpeg_mutations import odd_exif
from tests.pictures.odd import chunks

_PROFILES = [zlib.compress(bytes(size)) for size in (10, 132, 100_000, 3_000_000, 6_000_000)]
"""The last is more than a picture may have."""


def _joined(parts: list[bytes]) -> bytes:
    return b"".join((PNG_SIGNATURE, *parts))


def repeat_chunk(image: bytes, draw: random.Random) -> bytes:
    """Repeat a chunk there or elsewhere."""
    parts = chunks(image)
    parts.insert(draw.randrange(len(parts) + 1), draw.choice(parts))
    return _joined(parts)


def drop_chunk(image: bytes, draw: random.Random) -> bytes:
    """Leave out a chunk."""
    parts = chunks(image)
    del parts[draw.randrange(len(parts))]
    return _joined(parts)


def swap_chunks(image: bytes, draw: random.Random) -> bytes:
    """Exchange two chunks."""
    parts = chunks(image)
    one, other = draw.randrange(len(parts)), draw.randrange(len(parts))
    parts[one], parts[other] = parts[other], parts[one]
    return _joined(parts)


def change_checksum(image: bytes, draw: random.Random) -> bytes:
    """Give a chunk a wrong checksum."""
    parts = chunks(image)
    place = draw.randrange(len(parts))
    parts[place] = parts[place][:-1] + bytes([parts[place][-1] ^ 1])
    return _joined(parts)


def change_chunk(image: bytes, draw: random.Random) -> bytes:
    """Change a byte of a chunk; the checksum is right."""
    parts = chunks(image)
    place = draw.randrange(len(parts))
    kind, data = parts[place][4:8], bytearray(parts[place][8:-4])
    data[draw.randrange(len(data))] = draw.choice((0, 1, 2, 3, 4, 6, 8, 16, 255, draw.randrange(256)))
    parts[place] = chunk_bytes(kind, bytes(data))
    return _joined(parts)


def change_length(image: bytes, draw: random.Random) -> bytes:
    """Change the length of a chunk's data; the checksum is right."""
    parts = chunks(image)
    place = draw.randrange(len(parts))
    kind, data = parts[place][4:8], parts[place][8:-4]
    parts[place] = chunk_bytes(kind, draw.choice((data[:-1], data + b"\x00", b"", data * 2)))
    return _joined(parts)


def insert_chunk(image: bytes, draw: random.Random) -> bytes:
    """Insert a chunk of another kind."""
    chosen = draw.choice(
        (
            (b"tEXt", b"Comment\x00text"),
            (b"zTXt", b"Comment\x00\x00" + draw.choice(_PROFILES)),
            (b"zTXt", b"Comment\x00\x00" + draw.randbytes(20)),
            (b"iTXt", b"Comment\x00\x01\x00\x00\x00" + zlib.compress(bytes(100))),
            (b"iCCP", b"profile\x00\x00" + zlib.compress(draw.randbytes(200))),
            (b"iCCP", draw.randbytes(20)),
            (b"gAMA", (45455).to_bytes(4)),
            (b"sBIT", bytes([1])),
            (b"bKGD", bytes(6)),
            (b"tRNS", draw.randbytes(draw.choice((1, 2, 6)))),
            (b"PLTE", draw.randbytes(draw.choice((3, 6, 768, 771, 4)))),
            (b"acTL", bytes([0, 0, 0, 2, 0, 0, 0, 0])),
            (b"fcTL", bytes(26)),
            (b"fdAT", bytes(8)),
            (b"eXIf", b"MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06" + bytes(6)),
            (b"eXIf", draw.randbytes(26)),
            (b"IDAT", b""),
            (b"IDAT", draw.randbytes(5)),
            (b"ABCD", b"critical"),
            (b"abcd", b"ancillary"),
            (b"IEND", b""),
            (b"eXIf", odd_exif(draw)),
            (b"iCCP", b"profile\x00\x00" + draw.choice(_PROFILES)),
            (b"zTXt", b"\x00\x00" + zlib.compress(bytes(10))),
            (b"hIST", draw.randbytes(draw.choice((2, 4, 512)))),
            (b"sPLT", b"name\x00\x08" + draw.randbytes(draw.choice((0, 6, 7)))),
            (b"pHYs", draw.randbytes(draw.choice((8, 9)))),
            (b"tIME", draw.randbytes(draw.choice((6, 7)))),
            (b"cHRM", draw.randbytes(draw.choice((31, 32)))),
            (b"sRGB", bytes([draw.randrange(6)])),
            (b"cICP", draw.randbytes(4)),
            (b"cLLI", draw.randbytes(8)),
            (b"mDCV", draw.randbytes(24)),
            (b"oFFs", draw.randbytes(9)),
            (b"pCAL", b"name\x00" + draw.randbytes(20)),
            (b"sCAL", b"\x011.0\x00" + draw.choice((b"1.0", b"-1", b""))),
            (b"sTER", bytes([draw.randrange(4)])),
            (draw.choice((b"IdAT", b"IDaT", b"iDAT", b"tEXT", b"TEXT", b"teXt")), draw.randbytes(4)),
        )
    )
    parts = chunks(image)
    parts.insert(draw.randrange(len(parts) + 1), chunk_bytes(*chosen))
    return _joined(parts)


def second_header(image: bytes, draw: random.Random) -> bytes:
    """Insert another header."""
    parts = chunks(image)
    side = draw.choice((1, 30_000)).to_bytes(4)
    header = chunk_bytes(b"IHDR", side + side + parts[0][16:21])
    parts.insert(draw.randrange(len(parts)), header)
    return _joined(parts)


def split_pixels(image: bytes, draw: random.Random) -> bytes:
    """Split the pixels into several chunks, perhaps with another in between."""
    parts = []
    for part in chunks(image):
        data = part[8:-4]
        if part[4:8] != b"IDAT" or len(data) < 2:
            parts.append(part)
            continue
        at = draw.randrange(1, len(data))
        middle = draw.choice((b"", b"", chunk_bytes(b"tEXt", b"a\x00b"), chunk_bytes(b"IDAT", b"")))
        parts += [chunk_bytes(b"IDAT", data[:at]), middle, chunk_bytes(b"IDAT", data[at:])]
    return _joined(parts)


def change_pixels(image: bytes, draw: random.Random) -> bytes:
    """Compress other pixels: too few, too many, with invalid filters, or with a wrong checksum inside."""
    parts = chunks(image)
    place = next(at for at, part in enumerate(parts) if part[4:8] == b"IDAT")
    raw = bytearray(zlib.decompress(parts[place][8:-4]))
    kind = draw.randrange(5)
    if kind == 0:
        del raw[draw.randrange(len(raw)) :]
    elif kind == 1:
        raw += bytes(draw.choice((1, 1000)))
    elif kind == 2:
        raw[0] = draw.randrange(256)
    data = zlib.compress(bytes(raw))
    if kind == 3:
        data = data[:-1] + bytes([data[-1] ^ 1])
    elif kind == 4:
        data = draw.choice((data[:-4], data[:-5], data + b"more", data[:2]))
    parts[place] = chunk_bytes(b"IDAT", data)
    return _joined(parts)


def change_header(image: bytes, draw: random.Random) -> bytes:
    """Declare the rows interlaced, of another depth, colour or size; the checksum is right."""
    parts = chunks(image)
    header = bytearray(parts[0][8:-4])
    place, values = draw.choice(
        (
            (12, (0, 1, 2)),
            (8, (1, 2, 4, 8, 16)),
            (9, (0, 2, 3, 4, 6)),
            (10, (1,)),
            (11, (1, 64)),
            (3, range(256)),
            (7, range(256)),
        )
    )
    header[place] = draw.choice(values)
    parts[0] = chunk_bytes(b"IHDR", bytes(header))
    return _joined(parts)


def change_compression(image: bytes, draw: random.Random) -> bytes:
    """Change the header of the compressed pixels: window, method, dictionary; or its checksum."""
    parts = chunks(image)
    place = next(at for at, part in enumerate(parts) if part[4:8] == b"IDAT")
    data = bytearray(parts[place][8:-4])
    method, flags = draw.choice((0x08, 0x18, 0x38, 0x78, 0x88, 0x79)), draw.choice((0x00, 0x20, 0x80, 0xC0))
    data[0], data[1] = method, flags | (31 - (method * 256 + flags) % 31) % 31
    if draw.random() < 0.3:
        data[1] ^= 1
    parts[place] = chunk_bytes(b"IDAT", bytes(data))
    return _joined(parts)


def change_filters(image: bytes, draw: random.Random) -> bytes:
    """Give rows other filters, as they are or invalid ones."""
    parts = chunks(image)
    place = next(at for at, part in enumerate(parts) if part[4:8] == b"IDAT")
    raw = bytearray(zlib.decompress(parts[place][8:-4]))
    rows = int.from_bytes(parts[0][12:16])
    if not 0 < rows <= len(raw):
        raise ValueError("an earlier mutation changed the height")
    row = len(raw) // rows
    for number in range(rows):
        raw[number * row] = draw.choice((0, 1, 2, 3, 4, 4, 4, draw.choice((4, 5, 64, 255))))
    parts[place] = chunk_bytes(b"IDAT", zlib.compress(bytes(raw), draw.randrange(10)))
    return _joined(parts)


def animate(image: bytes, draw: random.Random) -> bytes:
    """Make it an animation, whose frames are whole, outside, out of order, or many."""
    parts = chunks(image)
    place = next(at for at, part in enumerate(parts) if part[4:8] == b"IDAT")
    size, count = parts[0][8:16], draw.choice((1, 2, 2, 2000))
    offset = draw.choice((0, 0, 1000)).to_bytes(4)
    control = size + offset + bytes(4) + b"\x00\x01\x00\x0a" + bytes([draw.randrange(4), draw.randrange(3)])
    before = [chunk_bytes(b"acTL", count.to_bytes(4) + bytes(4))]
    if draw.random() < 0.6:
        before.append(chunk_bytes(b"fcTL", bytes(4) + control))
    numbers = [draw.choice((at, at, at, 0)) for at in range(1, 2 * count)]
    behind = [
        part
        for number in numbers[::2]
        for part in (
            chunk_bytes(b"fcTL", number.to_bytes(4) + control),
            chunk_bytes(b"fdAT", (number + 1).to_bytes(4) + parts[place][8:-4]),
        )
    ]
    return _joined([*parts[:place], *before, parts[place], *behind, *parts[place + 1 :]])


def cut_at_chunk(image: bytes, draw: random.Random) -> bytes:
    """End at the beginning or end of a chunk, or within its head or checksum."""
    parts = chunks(image)
    place = draw.randrange(len(parts))
    return (
        _joined(parts[:place])
        + parts[place][: draw.choice((0, 2, 4, 6, 8, len(parts[place]) - 2, len(parts[place])))]
    )


PNG: tuple[Mutation, ...] = (
    change_header,
    change_compression,
    change_filters,
    animate,
    cut_at_chunk,
    truncate,
    append,
    flip_bits,
    repeat_chunk,
    drop_chunk,
    swap_chunks,
    change_checksum,
    change_chunk,
    change_length,
    insert_chunk,
    insert_chunk,
    second_header,
    split_pixels,
    change_pixels,
)
