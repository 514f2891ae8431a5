"""Draw a photo: a scene with one cat or dog, and the effects of a camera."""

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from random import Random
from types import MappingProxyType

from PIL import Image, ImageChops, ImageFilter
from PIL.Image import Resampling

from demo.synthetic import scene
from demo.synthetic.body import POSES
from demo.synthetic.pen import Pen, Place, oval
from demo.synthetic.traits import traits

_Range = tuple[float, float]

_FINE = 2
"""Supersampling factor of the animal, for smooth outlines."""
_OCCLUDED = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """Characteristics of a camera. Pairs are ranges; each photo draws a value.

    Args:
        width_px: Width of its photos.
        height_px: Height of its photos.
        exposure: Brightness; 1 is correct.
        tint: Gains of red, green and blue.
        contrast: 1 is correct.
        saturation: 1 is correct, 0 is grey.
        zoom: Size of the animal; 1 fills the photo.
        vignette: Darkening of the corners, 0..1.
        blur_px: Radius of the blur.
        noise: Standard deviation of the brightness noise, of 255.
        grain_px: Size of a grain of noise.
        quality: JPEG quality, 1..95.
    """

    width_px: int = 400
    height_px: int = 300
    exposure: _Range = (0.92, 1.2)
    tint: tuple[float, float, float] = (1, 1, 1)
    contrast: _Range = (0.9, 1.15)
    saturation: _Range = (0.8, 1.2)
    zoom: _Range = (0.9, 1.3)
    vignette: _Range = (0, 0.25)
    blur_px: _Range = (0, 0.9)
    noise: _Range = (1, 6)
    grain_px: float = 1
    quality: tuple[int, int] = (78, 92)


LOOKS: Mapping[str, Look] = MappingProxyType(
    {
        "daylight": Look(),
        "dusk": Look(
            exposure=(0.65, 0.9),
            tint=(0.9, 0.94, 1.2),
            saturation=(0.4, 0.8),
            noise=(3, 7),
            vignette=(0.2, 0.5),
        ),
        "wide": Look(
            width_px=480,
            height_px=360,
            zoom=(0.66, 0.92),
            tint=(1.05, 1.02, 0.92),
            vignette=(0.3, 0.6),
            quality=(65, 85),
        ),
        "old": Look(
            width_px=320,
            height_px=240,
            exposure=(0.8, 1.1),
            tint=(1.15, 1.0, 0.76),
            contrast=(0.65, 0.9),
            saturation=(0.25, 0.6),
            vignette=(0.3, 0.6),
            blur_px=(0.2, 0.9),
            noise=(4, 9),
            grain_px=1.5,
            quality=(60, 80),
        ),
    }
)
"""Different cameras: a model that is trained on one sees drift on another."""


def draw(label: str, seed: int, look: Look = LOOKS["daylight"]) -> bytes:
    """Draw a photo of an animal; takes about 20 ms.

    Args:
        label: "cat" or "dog".
        seed: The same seed gives the same bytes with the same version of Pillow. All looks of a seed show the
            same scene, the two classes different ones.
        look: The camera.

    Returns:
        JPEG, 8 to 40 kB.

    Raises:
        ValueError: The class is unknown.
    """
    chance = Random(f"scene {label} {seed}")
    image = _scene(label, chance, look)
    # A second generator, so that a look changes the picture and not the scene.
    chance = Random(f"lens {label} {seed}")
    encoded = io.BytesIO()
    _lens(image, chance, look).save(encoded, "JPEG", quality=chance.randint(*look.quality))
    return encoded.getvalue()


def _scene(label: str, rng: Random, look: Look) -> Image.Image:
    width, height = look.width_px, look.height_px
    wide = width / height
    back = Image.new("RGB", (width, height))
    scene.background(Pen(back, Place(height, 0, 0, height, 0, 0)), rng, wide, rng.uniform(0.45, 0.8))
    back = back.filter(ImageFilter.BoxBlur(max(0.4, rng.uniform(-1.5, 3.0))))
    image = back.resize((width * _FINE, height * _FINE), Resampling.NEAREST)
    pen = Pen(image, Place(height * _FINE, 0, 0, height * _FINE, 0, 0))
    _animal(pen, label, rng, look)
    if rng.random() < _OCCLUDED:
        scene.foreground(pen, rng, wide)
    return image.reduce(_FINE)


def _animal(pen: Pen, label: str, rng: Random, look: Look) -> None:
    """Paint an animal somewhere in the picture, sometimes partly outside, with its shadow on the floor."""
    wide = look.width_px / look.height_px
    animal = traits(label, rng)
    pose = rng.choices(POSES, [pose.share for pose in POSES])[0]
    height = pose.bottom - pose.top
    size = min(1 / height, wide / pose.width) * rng.uniform(*look.zoom)
    room_x, room_y = max(0.1, wide - size * pose.width), max(0.1, 1 - size * height)
    x = wide / 2 + rng.uniform(-0.6, 0.6) * room_x
    y = 0.53 + rng.uniform(-0.3, 0.5) * room_y - (pose.top + pose.bottom) / 2 * size
    spot = pen.within(x, y, scale=size, turn=rng.gauss(0, 0.09), mirror=rng.random() < 0.5)
    spot.fill(oval(0, pose.bottom - 0.1, pose.width * 0.48, 0.3), (0, 0, 0, 70))
    pose.paint(spot, animal, rng)


def _lens(image: Image.Image, rng: Random, look: Look) -> Image.Image:
    image = image.filter(ImageFilter.BoxBlur(rng.uniform(*look.blur_px)))
    image = image.convert("RGB", _saturation(rng.uniform(*look.saturation)))
    image = ImageChops.multiply(image, _shadow(image.size, rng, rng.uniform(*look.vignette)))
    image = image.point(_tone(rng, look))
    noise = _noise(image.size, rng, round(rng.uniform(*look.noise)), look.grain_px)
    return ImageChops.add(image, noise, 1, -128)


def _saturation(amount: float) -> tuple[float, ...]:
    """Return the matrix that moves each colour away from its grey."""
    r, g, b = (weight * (1 - amount) for weight in (0.299, 0.587, 0.114))
    return (r + amount, g, b, 0, r, g + amount, b, 0, r, g, b + amount, 0)


def _shadow(size: tuple[int, int], rng: Random, vignette: float) -> Image.Image:
    """Return the share of light at each pixel: less in the corners, and less away from one side."""
    slope = rng.uniform(0, 0.45)
    corners = Image.radial_gradient("L").point(
        [round(255 - 255 * vignette * (v / 255) ** 2) for v in range(256)]
    )
    away = Image.linear_gradient("L").point([round(255 - slope * v) for v in range(256)])
    away = away.rotate(rng.choice([0, 90, 180, 270]))
    return Image.merge("RGB", [ImageChops.multiply(corners, away).resize(size)] * 3)


def _tone(rng: Random, look: Look) -> list[int]:
    """Return the table from channel value to channel value, for red, green and blue in turn."""
    exposure, contrast = rng.uniform(*look.exposure), rng.uniform(*look.contrast)
    middle = 118 * min(1, exposure)
    gains = [gain * exposure * rng.uniform(0.92, 1.08) for gain in look.tint]
    return [_channel((v * gain - middle) * contrast + middle) for gain in gains for v in range(256)]


def _noise(size: tuple[int, int], rng: Random, sigma: int, grain_px: float) -> Image.Image:
    """Return grey noise around 128."""
    width, height = (math.ceil(side / grain_px) for side in size)
    grey = Image.frombytes("L", (width, height), rng.randbytes(width * height)).point(_bell(sigma))
    return Image.merge("RGB", [grey.resize(size, Resampling.BILINEAR)] * 3)


@cache
def _bell(sigma: int) -> list[int]:
    """Return the table from a uniform byte to noise around 128 with a standard deviation.

    Source: the quantile function of the logistic distribution, close to the normal and in closed form.
    """
    scale = sigma * math.sqrt(3) / math.pi
    shares = [(v + 0.5) / 256 for v in range(256)]
    return [_channel(128 + scale * math.log(share / (1 - share))) for share in shares]


def _channel(value: float) -> int:
    return min(255, max(0, round(value)))
