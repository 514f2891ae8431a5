"""Simulate an ageing camera at dusk."""

import io

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

_ROTATION_DEG = 90.0
_DARKER = 0.75
_PALER = 0.9
_BLUR_PX = 3.0
_NOISE = 18.0
_LESS_RED = 0.3


def degraded(image: bytes, strength: float, seed: int) -> bytes:
    """Return a degraded photo as JPEG.

    Args:
        image: Encoded photo.
        strength: 0 returns the same bytes; 1 rotates by up to 90 degrees, removes 75 % of the brightness, 90
            % of the saturation and 30 % of the red, blurs by 3 px and adds noise of 18 grey levels.
        seed: Seed of the angle and the noise.
    """
    if strength == 0:
        return image
    draw = np.random.default_rng(seed)
    with Image.open(io.BytesIO(image)) as opened:
        picture = opened.convert("RGB")
    angle = strength * draw.uniform(-_ROTATION_DEG, _ROTATION_DEG)
    picture = picture.rotate(angle, Image.Resampling.BILINEAR)
    picture = ImageEnhance.Color(picture).enhance(1 - _PALER * strength)
    picture = ImageEnhance.Brightness(picture).enhance(1 - _DARKER * strength)
    picture = picture.filter(ImageFilter.GaussianBlur(_BLUR_PX * strength))
    pixels = np.asarray(picture, np.float64) * (1 - _LESS_RED * strength, 1, 1)
    pixels += draw.normal(0, _NOISE * strength, pixels.shape)
    out = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=90)
    return out.getvalue()
