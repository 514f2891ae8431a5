"""From an encoded photo to the input of a network, in Pillow and NumPy: the numbers of the exported graph.

The training's gate and the model server both use it, so that a variant is judged as it will be served.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
from numpy.typing import NDArray

from schemas.image.facts import DESCRIBE, ImageFacts
from schemas.image.inspection import facts_of, walk_image
from schemas.litert.manifest import PixelFormat
from schemas.litert.resizing import resized
from schemas.pixels.decoding import decode_walked

Memory = Callable[[ImageFacts], AbstractContextManager[None]]
"""Waits for the memory that an image takes, and holds it until its pixels are the input of the network."""


def network_input(encoded: bytes, form: PixelFormat, memory: Memory | None = None) -> NDArray[np.float32]:
    """Return the input of a network for a photo, float32 `[1, height, width, 3]`.

    Args:
        encoded: the bytes of the photo; callers check the number of its pixels.
        form: size and normalisation.
        memory: None: there is enough.

    Raises:
        ImageError: the photo cannot be decoded.
    """
    stream = walk_image(encoded, DESCRIBE)
    facts = facts_of(stream, DESCRIBE)
    with memory(facts) if memory else nullcontext():
        picture = decode_walked(stream, facts, warn=False).picture
        image = resized(picture, form.width, form.height)
        del picture
    image -= np.float32(form.offset)
    image /= np.float32(form.scale)
    return image[np.newaxis]
