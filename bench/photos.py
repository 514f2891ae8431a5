"""Photos for benchmarks: coarse noise whose JPEG has about the size of a camera photo."""

import io
import itertools
import random
import secrets
from collections.abc import Iterator

from PIL import Image

from schemas.codec import encode
from schemas.messages import Photo
from schemas.topics import PHOTO

NODE = "edge-1"
_SIZE_PX = (640, 480)


def picture(
    draw: random.Random, *, quality: int, grain_px: int, size_px: tuple[int, int] = _SIZE_PX
) -> bytes:
    """Return a JPEG of coloured noise."""
    columns, rows = size_px[0] // grain_px, size_px[1] // grain_px
    grain = Image.frombytes("RGB", (columns, rows), draw.randbytes(columns * rows * 3))
    out = io.BytesIO()
    grain.resize(size_px, Image.Resampling.BICUBIC).save(out, "JPEG", quality=quality)
    return out.getvalue()


def pictures(
    count: int,
    *,
    quality: int = 65,
    grain_px: int = 20,
    size_px: tuple[int, int] = _SIZE_PX,
    seed: str = "bench",
) -> list[bytes]:
    """Return `count` different JPEGs, by default 640 x 480 pixels and about 30 kB."""
    draw = random.Random(seed)  # noqa: S311  # the content does not matter
    return [picture(draw, quality=quality, grain_px=grain_px, size_px=size_px) for _ in range(count)]


def payload(device: str, image: bytes, photo_id: str, node: str = NODE) -> bytes:
    """Return an encoded Photo."""
    return encode(PHOTO, Photo(photo_id=photo_id, node=node, device=device, image=image))


def payloads(device: str) -> Iterator[bytes]:
    """Yield encoded photos of 80 kB without end, each with a new id."""
    for image in itertools.cycle(pictures(16, quality=85, grain_px=8, seed=device)):
        yield payload(device, image, secrets.token_hex(16))
