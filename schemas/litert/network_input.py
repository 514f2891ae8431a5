"""From an encoded photo to the input of a network, in Pillow and NumPy: the numbers of the exported graph.

The training's gate and the model server both use it, so that a variant is judged as it will be served.
"""

import numpy as np
from numpy.typing import NDArray

from schemas.image.facts import DESCRIBE
from schemas.litert.manifest import PixelFormat
from schemas.litert.resizing import resized
from schemas.pixels import decode_photo


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
