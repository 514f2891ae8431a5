"""The list of a file's parts: digest and size of each, in the order of the file.

    7.tar               the bundle
    7.tar.parts         the list of the bundle's parts
    7.tar.parts.parts   the list of that list's parts, whose digest is in the release

A list is a file like any other: it is as long as a seventieth of its bundle, and changes where the bundle
does. So it has a list too, and a node fetches of both only the parts that it lacks.

A list names no paths and no offsets: a part begins where those before it end. It is only a proposal: each
part is compared with its digest, and the whole bundle with the SHA-256 of the release.
"""

import struct
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta, Struct

from schemas.errors import DECODE_ERRORS, PermanentError
from schemas.field_types import Sha256

SUFFIX = ".parts"
"""Behind the name of a file, it names the list of its parts."""
DIGEST_BYTES = 16
MAX_PART_BYTES = 8192

_ENTRY = struct.Struct(f">{DIGEST_BYTES}sH")


class PartsError(PermanentError):
    """A file cannot be put together from its parts: their list, or one of them, is missing or wrong."""


class Part(NamedTuple):
    """One part of a file.

    Attributes:
        digest: 128-bit BLAKE2b of its bytes.
        start: offset in the file.
        size_bytes: 1 to `MAX_PART_BYTES`.
    """

    digest: bytes
    start: int
    size_bytes: int


class PartList(Struct, frozen=True, kw_only=True):
    """The parts of one file.

    Attributes:
        sha256: of the file.
        size_bytes: of the file.
        entries: digest (16 bytes) and size (2 bytes, big endian) of each part.
    """

    sha256: Sha256
    size_bytes: Annotated[int, Meta(ge=1, le=2**40)]
    entries: bytes

    def parts(self) -> Iterator[Part]:
        """Yield the parts from the beginning of the file to its end."""
        start = 0
        for digest, size_bytes in _ENTRY.iter_unpack(self.entries):
            yield Part(digest, start, size_bytes)
            start += size_bytes


def part_digest(content: bytes | memoryview) -> bytes:
    """Return the digest that names a part."""
    return blake2b(content, digest_size=DIGEST_BYTES).digest()


def encode_part_list(sha256: str, size_bytes: int, parts: Iterable[Part]) -> bytes:
    """Return the list of a file's parts, as msgpack; `decode_part_list` is the inverse."""
    entries = b"".join(_ENTRY.pack(part.digest, part.size_bytes) for part in parts)
    return msgspec.msgpack.encode(PartList(sha256=sha256, size_bytes=size_bytes, entries=entries))


def decode_part_list(encoded: bytes) -> PartList:
    """Return a list of parts from outside, checked; the caller bounds its length.

    Raises:
        PartsError: It is malformed, or its parts do not add up to the file.
    """
    try:
        found = msgspec.msgpack.decode(encoded, type=PartList)
    except DECODE_ERRORS as error:
        raise PartsError(f"the list of parts cannot be read: {error}") from None
    if len(found.entries) % _ENTRY.size:
        raise PartsError("the list of parts ends in the middle of a part")
    total = 0
    for _, size_bytes in _ENTRY.iter_unpack(found.entries):
        if not 1 <= size_bytes <= MAX_PART_BYTES:
            raise PartsError("size of a part", expected=f"1 to {MAX_PART_BYTES} bytes", got=size_bytes)
        total += size_bytes
    if total != found.size_bytes:
        raise PartsError("parts of a file", expected=f"{found.size_bytes} bytes together", got=total)
    return found
