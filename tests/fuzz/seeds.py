"""Inputs to begin with: recorded messages and small pictures, whole and broken at every joint."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from schemas.topics import TOPICS, find
from tests.fuzz.targets import TARGETS, look_at, read_topic, take_photo

_VECTORS = Path(__file__).resolve().parents[1] / "contract/v1.0/vectors.json"


def pictures() -> Iterator[bytes]:
    """Yield small pictures of each format and mode that the edge takes."""
    for mode in ("RGB", "L", "CMYK"):
        yield _encoded(mode, "JPEG")
    for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16"):
        yield _encoded(mode, "PNG")
    yield _encoded("RGB", "JPEG", progressive=True)


def broken(picture: bytes) -> Iterator[bytes]:
    """Yield a picture cut at every segment or chunk, and with each one's length and type spoilt."""
    for at in _joints(picture):
        yield picture[:at]
        for spoilt in (b"\x00", b"\xff", b"\x7f"):
            yield picture[: at + 1] + spoilt + picture[at + 2 :]
            yield picture[: at + 2] + spoilt * 2 + picture[at + 4 :]


def seeds() -> Iterator[bytes]:
    """Yield inputs for `targets.run`."""
    for vector in json.loads(_VECTORS.read_text()):
        kind, _ = find(vector["topic"])
        payload = base64.b64decode(vector["payload"])
        yield bytes([TOPICS.index(kind)]) + payload
        yield bytes([TARGETS.index(take_photo)]) + payload
        yield bytes([TARGETS.index(read_topic)]) + vector["topic"].encode()
    for picture in pictures():
        for image in (picture, *broken(picture)):
            yield bytes([TARGETS.index(look_at)]) + image


def _encoded(mode: str, kind: str, **options: bool) -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").resize((24, 16)).convert(mode).save(out, kind, **options)
    return out.getvalue()


def _joints(picture: bytes) -> Iterator[int]:
    """Yield where JPEG markers and PNG chunk types begin."""
    marks = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND") if picture.startswith(b"\x89") else (b"\xff",)
    for at in range(2, len(picture)):
        if picture.startswith(marks, at):
            yield at
