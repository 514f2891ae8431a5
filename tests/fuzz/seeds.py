"""Seed inputs: recorded messages, and small images, intact and corrupted at every segment."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from schemas.topics import TOPICS, find
from tests.fuzz.targets import TARGETS, read_image, read_topic, take_photo

_VECTORS = Path(__file__).resolve().parents[1] / "contract/v1.0/vectors.json"


def images() -> Iterator[bytes]:
    """Yield small images of each format and mode that the edge accepts."""
    for mode in ("RGB", "L", "CMYK"):
        yield _encoded(mode, "JPEG")
    for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16"):
        yield _encoded(mode, "PNG")
    yield _encoded("RGB", "JPEG", progressive=True)


def corrupted(image: bytes) -> Iterator[bytes]:
    """Yield an image truncated at each segment or chunk, and with the type and length of each overwritten."""
    for at in _segments(image):
        yield image[:at]
        for byte in (b"\x00", b"\xff", b"\x7f"):
            yield image[: at + 1] + byte + image[at + 2 :]
            yield image[: at + 2] + byte * 2 + image[at + 4 :]


def seeds() -> Iterator[bytes]:
    """Yield inputs for `targets.run`."""
    for vector in json.loads(_VECTORS.read_text()):
        kind, _ = find(vector["topic"])
        payload = base64.b64decode(vector["payload"])
        yield bytes([TOPICS.index(kind)]) + payload
        yield bytes([TARGETS.index(take_photo)]) + payload
        yield bytes([TARGETS.index(read_topic)]) + vector["topic"].encode()
    for intact in images():
        for image in (intact, *corrupted(intact)):
            yield bytes([TARGETS.index(read_image)]) + image


def _encoded(mode: str, kind: str, **options: bool) -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").resize((24, 16)).convert(mode).save(out, kind, **options)
    return out.getvalue()


def _segments(image: bytes) -> Iterator[int]:
    """Yield the positions of JPEG markers or PNG chunk types."""
    marks = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND") if image.startswith(b"\x89") else (b"\xff",)
    for at in range(2, len(image)):
        if image.startswith(marks, at):
            yield at
