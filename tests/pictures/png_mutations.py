"""Mutations of a PNG. Each raises an error of its own kind if an earlier one left nothing to change."""

import random
import zlib

from schemas.image.png_pixels import chunk_bytes
from schemas.image.signatures import PNG_SIGNATURE
from tests.pictures.common_mutations import Mutation, append, flip_bits, truncate
from tests.pictures.odd import chunks


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
            (b"zTXt", b"Comment\x00\x00" + zlib.compress(bytes(draw.choice((10, 100_000))))),
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


PNG: tuple[Mutation, ...] = (
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
