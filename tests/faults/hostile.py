"""Messages of hostile devices, as a device with rights to its own topics can send them."""

import io
import random
import struct
import zlib
from collections.abc import Iterator

import msgpack
from PIL import Image

from schemas.codec import encode
from schemas.messages import Feedback, Photo
from schemas.topics import FEEDBACK, PHOTO, ROOT
from tests.nodes import NODE, photo

_MANY = 200
_SIDE = 12_000
_HOSTILE_TEXT = "\x1b]0;owned\x07\u202e" + "x" * 100

HOSTILE_DEVICES = frozenset({"hostile", "flood", "edge"})
"""The names that their photos have; `edge` is reserved for the handler of a node."""

Message = tuple[str, bytes]
"""Topic and payload."""


def _topic(device: str) -> str:
    return PHOTO.name(node=NODE, device=device)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _header(side: int) -> bytes:
    return _chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))


def double_header(draw: random.Random) -> bytes:
    """Return a small PNG with two headers: one reader believes the first, 64 x 64, another the last."""
    packed, row = zlib.compressobj(9), b"\0" * (1 + _SIDE // 8)
    data = b"".join(packed.compress(row * 64) for _ in range(_SIDE // 64 + 1)) + packed.flush()
    return (
        b"\x89PNG\r\n\x1a\n"
        + _header(64)
        + _header(_SIDE)
        + _chunk(b"IDAT", data)
        + _chunk(b"tEXt", b"seed\0" + str(draw.random()).encode())
        + _chunk(b"IEND", b"")
    )


def _segment(jpeg: bytes, marker: int) -> tuple[int, int]:
    """Return where a segment of a JPEG begins and ends."""
    at = 2
    while jpeg[at + 1] != marker:
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    return at, at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")


def hidden_header(draw: random.Random) -> bytes:
    """Return a JPEG whose real frame header stands behind FF 00, where a naive walk skips it."""
    out = io.BytesIO()
    Image.new("L", (4000, 3000), draw.randrange(256)).save(out, "JPEG", quality=50)
    jpeg = out.getvalue()
    _, end = _segment(jpeg, 0xC0)
    decoy = b"\xff\xc0\x00\x0b\x08\x00\x0a\x00\x0a\x01\x01\x11\x00"
    comment = b"\xff\xfe" + struct.pack(">H", 2 + len(decoy)) + decoy
    real = jpeg[2:end]
    return jpeg[:2] + b"\xff\x00" + struct.pack(">H", 2 + len(real) + 4) + real + comment + jpeg[end:]


def many_scans(draw: random.Random) -> bytes:
    """Return a progressive JPEG of 12 megapixels with hundreds of scans, each of which costs a whole pass."""
    out = io.BytesIO()
    Image.new("L", (4000, 3000), draw.randrange(256)).save(out, "JPEG", quality=75, progressive=True)
    jpeg = out.getvalue()
    first, _ = _segment(jpeg, 0xDA)
    scan = jpeg.index(b"\xff\xda", first + 2)
    tables = jpeg.rindex(b"\xff\xc4", 0, scan)
    ends = [
        at
        for at in range(scan + 12, len(jpeg) - 1)
        if jpeg[at] == 0xFF and jpeg[at + 1] not in {0, *range(0xD0, 0xD8)}
    ]
    return jpeg[: ends[0]] + jpeg[tables : ends[0]] * 2000 + b"\xff\xd9"


def malformed(draw: random.Random) -> Iterator[Message]:
    """Yield messages that are none: random bytes, wrong types, unknown versions, deep nesting."""
    deep: object = []
    for _ in range(64):
        deep = [deep]
    for payload in (
        draw.randbytes(draw.randrange(1, 200)),
        b"",
        b"\xff\xd8",
        b'{"v": 99}',
        b" \n{}",
        msgpack.packb({"photo_id": 7, "image": deep}),
        msgpack.packb({"v": 1, "photo_id": _HOSTILE_TEXT, "node": NODE, "device": "hostile", "image": b"x"}),
        b"\xdf\xff\xff\xff\xff",
    ):
        yield _topic("hostile"), payload


def labels(draw: random.Random) -> Iterator[Message]:
    """Yield labels for photos that do not exist, with names that no class may have."""
    for _ in range(_MANY):
        label = draw.choice(("cat", _HOSTILE_TEXT, " cat ", "a" * 128))
        message = Feedback(
            photo_id=f"{draw.getrandbits(128):032x}", node=NODE, device="hostile", label=label, by="hostile"
        )
        yield FEEDBACK.name(node=NODE, device="hostile"), encode(FEEDBACK, message)


def odd_names(draw: random.Random) -> Iterator[Message]:
    """Yield photos of devices whose names are not DNS labels, and of reserved names."""
    for name in ("ESP32_CAM", "edge", "a" * 200, "caf\xe9", "-"):
        yield f"{ROOT}/photo/{NODE}/{name}", photo(draw.randrange(1000))


def flood(draw: random.Random) -> Iterator[Message]:
    """Yield good photos, many more than a camera takes."""
    for _ in range(_MANY):
        message = Photo(
            photo_id=f"{draw.getrandbits(128):032x}",
            node=NODE,
            device="flood",
            image=photo(draw.randrange(1 << 30)),
        )
        yield _topic("flood"), encode(PHOTO, message)


def pictures(make: object) -> object:
    """Return a function that yields one bare picture of a maker."""

    def one(draw: random.Random) -> Iterator[Message]:
        yield _topic("hostile"), make(draw)  # type: ignore[operator]  # one of the makers above

    return one


HOSTILE = {
    "double-header": pictures(double_header),
    "hidden-header": pictures(hidden_header),
    "many-scans": pictures(many_scans),
    "malformed": malformed,
    "labels": labels,
    "odd-names": odd_names,
    "flood": flood,
}
"""By kind: a function that yields the messages of one burst."""
