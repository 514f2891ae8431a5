"""From an encoded photo to the input of a network, in Pillow: the same numbers as the exported graph's.

The training's gate and the model server both use it, so that a variant is judged as it will be served.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from schemas.image.facts import DESCRIBE
from schemas.litert.manifest import PixelFormat
from schemas.pixels import decode_photo

_STRIP = 64
_CHANNELS = 3


def network_input(encoded: bytes, form: PixelFormat) -> NDArray[np.float32]:
    """Return the input of a network for a photo, float32 `[1, height, width, 3]`.

    Args:
        encoded: the bytes of the photo; callers check the number of its pixels.
        form: size and normalisation.

    Raises:
        ImageError: the photo cannot be decoded.
    """
    image = resized(np.asarray(decode_photo(encoded, DESCRIBE, warn=False).picture), form.width, form.height)
    image -= np.float32(form.offset)
    image /= np.float32(form.scale)
    return image[np.newaxis]


def resized(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.float32]:
    """Resize `[h, w, 3]` to float32 `[height, width, 3]` as `tf.image.resize(…, "bilinear", antialias=True)`.

    The values differ from TensorFlow's by less than 0.01 of 255.
    """
    # Pillow rounds 8-bit images after each of its two passes, but not images of floats (one channel, mode F).
    channels = [_resized_channel(pixels[..., channel], width, height) for channel in range(_CHANNELS)]
    return np.stack(channels, axis=-1)


def _resized_channel(channel: NDArray[np.uint8], width: int, height: int) -> NDArray[np.float32]:
    rows, columns = channel.shape
    # The longer side first: what lies between the passes would be large for a picture with one long side.
    between = _narrowed(channel, width) if rows * width <= columns * height else _flattened(channel, height)
    return np.asarray(Image.fromarray(between).resize((width, height), Image.Resampling.BILINEAR))


def _narrowed(channel: NDArray[np.uint8], width: int) -> NDArray[np.float32]:
    """Resize the rows. In strips: a photo of 12 megapixels as floats would take 48 MB."""
    narrow = np.empty((len(channel), width), np.float32)
    for top in range(0, len(channel), _STRIP):
        strip = Image.fromarray(channel[top : top + _STRIP].astype(np.float32))
        narrow[top : top + _STRIP] = np.asarray(
            strip.resize((width, strip.height), Image.Resampling.BILINEAR)
        )
    return narrow


def _flattened(channel: NDArray[np.uint8], height: int) -> NDArray[np.float32]:
    """Resize the columns, in strips too."""
    flat = np.empty((height, channel.shape[1]), np.float32)
    for left in range(0, channel.shape[1], _STRIP):
        strip = Image.fromarray(channel[:, left : left + _STRIP].astype(np.float32))
        flat[:, left : left + _STRIP] = np.asarray(
            strip.resize((strip.width, height), Image.Resampling.BILINEAR)
        )
    return flat
