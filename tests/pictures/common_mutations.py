"""Mutations of any file."""

import random
from collections.abc import Callable

Mutation = Callable[[bytes, random.Random], bytes]
_EOI = b"\xff\xd9"


def anywhere(image: bytes, draw: random.Random) -> int:
    """Return a position behind the first two bytes."""
    return draw.randrange(2, len(image))


def truncate(image: bytes, draw: random.Random) -> bytes:
    """Cut off the end; perhaps zeros, an end marker or rubbish come instead."""
    return image[: anywhere(image, draw)] + draw.choice(
        (b"", b"", bytes(500), _EOI, b"\xff", draw.randbytes(30))
    )


def append(image: bytes, draw: random.Random) -> bytes:
    """Put something behind the end, perhaps another picture."""
    return image + draw.choice((bytes(64), draw.randbytes(64), image, _EOI))


def flip_bits(image: bytes, draw: random.Random) -> bytes:
    """Flip some bits anywhere."""
    changed = bytearray(image)
    for _ in range(draw.choice((1, 1, 2, 5))):
        changed[anywhere(image, draw)] ^= 1 << draw.randrange(8)
    return bytes(changed)
