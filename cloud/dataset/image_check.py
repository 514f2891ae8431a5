"""Check that an image can be decoded: its header first, then every pixel."""

import io

from PIL import Image, UnidentifiedImageError

from schemas.errors import PermanentError
from schemas.image import ImageError, ImageHeader, read_header


def check_image(image: bytes, max_pixels: int, subject: str = "image") -> ImageHeader:
    """Decode a JPEG or PNG completely and return its header.

    Costs as much CPU as decoding: call it in a thread.

    Args:
        image: Any bytes.
        max_pixels: Images with more are refused without decoding.
        subject: Name of the image in errors.

    Raises:
        PermanentError: It is not a JPEG or PNG, has too many pixels, or is truncated or damaged.
    """
    try:
        header = read_header(image)
    except ImageError as error:
        raise PermanentError(subject, expected=error.expected, got=error.got) from None
    # Pillow decodes 50 000 x 50 000 pixels from a few kilobytes: refuse a bomb by its header.
    if header.pixels > max_pixels:
        got = f"{header.width} x {header.height}"
        raise PermanentError(subject, expected=f"at most {max_pixels} pixels", got=got)
    try:
        with Image.open(io.BytesIO(image), formats=("JPEG", "PNG")) as picture:
            picture.verify()  # the checksums of a PNG; load() does not read past the last pixel
        # verify() leaves the file unusable, so it is opened again.
        with Image.open(io.BytesIO(image), formats=("JPEG", "PNG")) as picture:
            picture.draft(
                None, (1, 1)
            )  # reads a JPEG to its end, but reconstructs only an eighth of its size
            picture.load()
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  # Pillow raises errors of all kinds for hostile bytes
        # The message of UnidentifiedImageError contains the address of the BytesIO object.
        got = "one that cannot be read" if isinstance(error, UnidentifiedImageError) else str(error)
        raise PermanentError(subject, expected=f"a whole {header.format}", got=got) from None
    return header
