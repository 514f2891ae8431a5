"""Whether an image is one that training can read: its header first, then every pixel."""

import io

from PIL import Image, UnidentifiedImageError

from schemas.errors import PermanentError
from schemas.image import ImageError, ImageHeader, read_header


def check_image(image: bytes, most_pixels: int, subject: str = "image") -> ImageHeader:
    """Decode a JPEG or PNG to see that it can be, and return what its header says.

    Takes as long as decoding does: call it in a thread.

    Args:
        image: Any bytes at all.
        most_pixels: More than that never reaches a decoder.
        subject: What to call it in the error.

    Raises:
        PermanentError: It is no JPEG or PNG, has too many pixels, or is broken.
    """
    try:
        header = read_header(image)
    except ImageError as error:
        raise PermanentError(subject, expected=error.expected, got=error.got) from None
    if header.pixels > most_pixels:
        got = f"{header.width} x {header.height}"
        raise PermanentError(subject, expected=f"at most {most_pixels} pixels", got=got)
    try:
        with Image.open(io.BytesIO(image), formats=("JPEG", "PNG")) as picture:
            picture.verify()  # the checksums of a PNG, which may be broken behind the last pixel
        with Image.open(io.BytesIO(image), formats=("JPEG", "PNG")) as picture:
            picture.draft(None, (1, 1))  # a JPEG is read to its end, and put together at an eighth
            picture.load()
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  # Pillow raises errors of all kinds for hostile bytes
        got = "one that cannot be read" if isinstance(error, UnidentifiedImageError) else str(error)
        raise PermanentError(subject, expected=f"a whole {header.format}", got=got) from None
    return header
