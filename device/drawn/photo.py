"""Drawn photos: a scene with one cat or dog, seen through a camera with a look of its own."""

import io
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import NormalDist

from PIL import Image, ImageChops, ImageFilter
from PIL.Image import Resampling

from device.drawn import scene
from device.drawn.body import POSES
from device.drawn.pen import Pen, Place, oval
from device.drawn.traits import CLASSES, traits

_Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Look:
    """A camera's character. Ranges are drawn from anew for each photo."""

    width_px: int = 400
    height_px: int = 300
    exposure: _Range = (0.92, 1.2)
    tint: tuple[float, float, float] = (1, 1, 1)
    contrast: _Range = (0.9, 1.15)
    colour: _Range = (0.8, 1.2)
    zoom: _Range = (0.75, 1.15)
    vignette: _Range = (0, 0.25)
    blur_px: _Range = (0, 0.9)
    noise: _Range = (1, 6)
    grain_px: float = 1.0
    quality: tuple[int, int] = (78, 92)


LOOKS: Mapping[str, Look] = {
    "daylight": Look(),
    "dusk": Look(
        exposure=(0.5, 0.75), tint=(0.9, 0.94, 1.2), noise=(4, 9), colour=(0.4, 0.8), vignette=(0.2, 0.5)
    ),
    "wide": Look(
        width_px=480,
        height_px=360,
        zoom=(0.55, 0.8),
        vignette=(0.3, 0.6),
        tint=(1.05, 1.02, 0.92),
        quality=(65, 85),
    ),
    "old": Look(
        width_px=320,
        height_px=240,
        exposure=(0.7, 1.0),
        tint=(1.15, 1.0, 0.76),
        contrast=(0.65, 0.9),
        colour=(0.25, 0.6),
        noise=(5, 12),
        grain_px=1.5,
        blur_px=(0.4, 1.2),
        vignette=(0.3, 0.6),
        quality=(55, 75),
    ),
}
SPLITS = ("train", "stream", "gold", "camera")
_SEEDS_PER_SPLIT = 1 << 32
_FINE = 2


def seed_of(split: str, seed: int, number: int) -> int:
    """Return the seed of one picture; no two splits share any."""
    return (seed * len(SPLITS) + SPLITS.index(split)) * _SEEDS_PER_SPLIT + number


def draw(label: str, seed: int, look: Look) -> bytes:
    """Return a JPEG of a cat or a dog; the same arguments always draw the same picture."""
    rng = random.Random(f"{label} {seed}")
    image = _scene(label, rng, look)
    image = _lens(image, rng, look)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=rng.randint(*look.quality))
    return buffer.getvalue()


def write_dataset(
    directory: Path, counts: Mapping[str, int], *, seed: int = 0, drawn: Callable[[], None] = lambda: None
) -> None:
    """Draw a collection: `<split>/<class>/<number>.jpg`, looks and classes in equal parts.

    Args:
        directory: Where to write.
        counts: Photos of each class by split, one of `SPLITS`.
        seed: Of the collection.
        drawn: Called after each photo.
    """
    looks = list(LOOKS.values())
    for split, count in counts.items():
        for label in CLASSES:
            folder = directory / split / label
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                image = draw(label, seed_of(split, seed, number), looks[number % len(looks)])
                (folder / f"{label}-{number:04d}.jpg").write_bytes(image)
                drawn()


def _scene(label: str, rng: random.Random, look: Look) -> Image.Image:
    width, height = look.width_px, look.height_px
    ground = rng.uniform(0.45, 0.8)
    back = Image.new("RGB", (width, height))
    scene.background(Pen(back, Place(height, 0, 0, height, 0, 0)), rng, width / height, ground)
    depth = rng.uniform(-1.5, 3.0)
    if depth > 0.4:
        back = back.filter(ImageFilter.BoxBlur(depth))
    image = back.resize((width * _FINE, height * _FINE), Resampling.BILINEAR)
    pen = Pen(image, Place(height * _FINE, 0, 0, height * _FINE, 0, 0))
    _animal(pen, label, rng, look)
    if rng.random() < 0.22:
        scene.foreground(pen, rng, width / height)
    return image.reduce(_FINE)


def _animal(pen: Pen, label: str, rng: random.Random, look: Look) -> None:
    wide = look.width_px / look.height_px
    animal = traits(label, rng)
    pose = rng.choices(POSES, [pose.share for pose in POSES])[0]
    height = pose.bottom - pose.top
    size = min(1 / height, wide / pose.width) * rng.uniform(*look.zoom)
    room_x, room_y = max(0.1, wide - size * pose.width), max(0.1, 1 - size * height)
    x = wide / 2 + rng.uniform(-0.6, 0.6) * room_x
    y = 0.53 + rng.uniform(-0.3, 0.5) * room_y - (pose.top + pose.bottom) / 2 * size
    turn = rng.gauss(0, 0.09)
    spot = pen.within(x, y, scale=size, turn=turn, mirror=rng.random() < 0.5)
    spot.fill(oval(0, pose.bottom - 0.1, pose.width * 0.48, 0.3), (0, 0, 0, 70))
    pose.paint(spot, animal, rng)


def _lens(image: Image.Image, rng: random.Random, look: Look) -> Image.Image:
    blur = rng.uniform(*look.blur_px)
    if blur > 0.3:
        image = image.filter(ImageFilter.BoxBlur(blur))
    image = image.convert("RGB", _saturation(rng.uniform(*look.colour)))
    image = ImageChops.multiply(image, _shadow(image.size, rng, rng.uniform(*look.vignette)))
    image = image.point(_tone(rng, look))
    return ImageChops.add(image, _noise(image.size, rng, rng.uniform(*look.noise), look.grain_px), 1, -128)


def _saturation(amount: float) -> tuple[float, ...]:
    r, g, b = 0.299 * (1 - amount), 0.587 * (1 - amount), 0.114 * (1 - amount)
    return (r + amount, g, b, 0, r, g + amount, b, 0, r, g, b + amount, 0)


def _shadow(size: tuple[int, int], rng: random.Random, depth: float) -> Image.Image:
    corners = Image.radial_gradient("L").point(
        [round(255 * (1 - depth * (v / 255) ** 2)) for v in range(256)]
    )
    slope = rng.uniform(0, 0.45)
    lit = (
        Image.linear_gradient("L")
        .point([round(255 * (1 - slope * v / 255)) for v in range(256)])
        .rotate(rng.choice([0, 90, 180, 270]))
    )
    return Image.merge("RGB", [ImageChops.multiply(corners, lit).resize(size)] * 3)


def _tone(rng: random.Random, look: Look) -> list[int]:
    exposure, contrast = rng.uniform(*look.exposure), rng.uniform(*look.contrast)
    table = []
    for tint in look.tint:
        gain = tint * exposure * rng.uniform(0.92, 1.08)
        middle = 118 * min(1.0, exposure)
        table += [min(255, max(0, round((v * gain - middle) * contrast + middle))) for v in range(256)]
    return table


def _noise(size: tuple[int, int], rng: random.Random, sigma: float, grain_px: float) -> Image.Image:
    small = (math.ceil(size[0] / grain_px), math.ceil(size[1] / grain_px))
    grey = Image.frombytes("L", small, rng.randbytes(small[0] * small[1])).point(_bell(round(sigma)))
    if grain_px > 1:
        grey = grey.resize(size, Resampling.BILINEAR)
    return Image.merge("RGB", [grey] * 3)


@cache
def _bell(sigma: int) -> list[int]:
    dist = NormalDist(128, max(1, sigma))
    return [min(255, max(0, round(dist.inv_cdf((v + 0.5) / 256)))) for v in range(256)]
