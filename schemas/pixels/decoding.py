"""Decode a photo to its pixels, for everything that decodes outside TensorFlow's graph.

The pixels of a photo are the same everywhere, in the exported graph within one level of 255:

- JPEG: the accurate integer DCT and smooth ("fancy") upsampling; missing data are what libjpeg makes of them.
- CMYK: the product with the black channel; inverted if an Adobe segment requires it.
- 16 bits: the upper 8.
- Grey and palette: as RGB. A palette index without entry is black.
- Transparent pixels: composed with white. A transparent colour of 16 bits is opaque.
- EXIF orientation: applied once, so that the first row is the top of the photo.
- Colour profiles, gamma and chromaticities: ignored, as by TensorFlow, so that training and answers agree.
- An animation: its first picture.
"""

import io
import math
from array import array
from collections.abc import Callable
from typing import NamedTuple

from PIL import Image, ImageChops, UnidentifiedImageError

from schemas.image.facts import ImageError, ImageFacts, ImageLimits
from schemas.image.inspection import DEFAULT_LIMITS, facts_of, walk_image
from schemas.image.jpeg import NO_END, JpegStream, write_jpeg
from schemas.image.png import GREY, PALETTE, PngStream
from schemas.image.png_pixels import check_pixel_data, png_essence

DECODING = 2
"""Version of this definition, recorded in model cards; 1 had neither orientation nor alpha."""

BACKGROUND = 255
"""Level of all channels behind transparent pixels."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_CMYK_CHANNELS = 4
_NO_DATA = 128
_OPAQUE = 255
_STRIP_PIXELS = 1_000_000

Size = tuple[int, int]


class Decoded(NamedTuple):
    """A decoded photo.

    Args:
        picture: Upright, in mode RGB, or L if grey was asked for; it can be a fraction of the photo's size.
        facts: Of the file; None for another format than JPEG and PNG.
        warning: libjpeg's first warning about the data: some pixels are not the photo's own. Without the
            package `simplejpeg`, only that the lower part is missing.
    """

    picture: Image.Image
    facts: ImageFacts | None
    warning: str | None

    @property
    def damaged(self) -> str | None:
        """Why the photo may differ from what the camera took, None if nothing shows that."""
        return (self.facts and self.facts.damaged) or self.warning

    @property
    def lost(self) -> str | None:
        """Why pixels are lost; None if they are all there, as where only the end marker is missing."""
        is_end_only = self.warning is None and self.facts is not None and self.facts.damaged == NO_END
        return None if is_end_only else self.damaged


def decode_photo(
    image: bytes,
    limits: ImageLimits = DEFAULT_LIMITS,
    *,
    at_least: Size | None = None,
    grey: bool = False,
    warn: bool = True,
) -> Decoded:
    """Decode a JPEG or PNG. Costs up to a second of CPU: call it in a thread.

    Args:
        image: Any bytes.
        limits: Budgets.
        at_least: Width and height in pixels that are enough. A larger JPEG is decoded at some eighths of its
            size then, which takes less time and memory.
        grey: Return luminance.
        warn: Look for damaged data, which takes 10 MB of memory where the package `simplejpeg` is.

    Raises:
        ImageError: It is not acceptable, or its pixels cannot be decoded.
    """
    stream = walk_image(image, limits)
    facts = facts_of(stream, limits)
    return decode_walked(stream, facts, at_least=at_least, grey=grey, warn=warn)


def decode_walked(
    stream: JpegStream | PngStream,
    facts: ImageFacts,
    *,
    at_least: Size | None = None,
    grey: bool = False,
    warn: bool = True,
) -> Decoded:
    """Decode an image that was walked and checked; with its facts, as `decode_photo` describes."""
    if at_least is not None and facts.is_turned:
        at_least = at_least[1], at_least[0]
    if isinstance(stream, JpegStream):
        stored, warning = _decode_jpeg(stream, at_least, grey=grey, warn=warn)
    else:
        stored, warning = _decode_png(stream, "L" if grey else "RGB"), None
    mode = "L" if grey else "RGB"
    picture = stored if stored.mode == mode else stored.convert(mode)  # which copies otherwise too
    del stored  # turning it must not need a third picture
    if (turn := _TURNS.get(facts.orientation)) is not None:
        picture = picture.transpose(turn)
    return Decoded(picture, facts, warning)


def _decode_jpeg(
    stream: JpegStream, at_least: Size | None, *, grey: bool, warn: bool
) -> tuple[Image.Image, str | None]:
    assert stream.frame is not None
    # Without the metadata, on which Pillow fails more often than on pixels.
    essence = write_jpeg(stream)
    size = stream.frame.width, stream.frame.height
    at_least = (min(size[0], at_least[0]), min(size[1], at_least[1])) if at_least else size
    if len(stream.frame.components) == _CMYK_CHANNELS:
        inverted = stream.adobe is not None
        mode = "L" if grey else "RGB"
        to_mode = lambda strip: _cmyk_to_rgb(strip, inverted=inverted).convert(mode)  # noqa: E731
        picture = _guarded(lambda: _by_strips(_open(essence, size, "JPEG", at_least), mode, to_mode))
        return picture, _read_strictly(essence, "CMYK", (1, 1))[1] if warn else None
    colours = "GRAY" if grey else "RGB"
    found, warning = _read_strictly(essence, colours, at_least) if warn else (None, None)
    if found is not None:
        return found, warning
    picture = _guarded(lambda: _open(essence, size, "JPEG", at_least, grey=grey))
    return picture, (warning or _missing_end(picture)) if warn else None


def _missing_end(picture: Image.Image) -> str | None:
    """Return a warning if the last row is what libjpeg makes of missing data: grey of level 128 exactly."""
    last = _row(picture, picture.height - 1)
    levels = [band.getextrema() for band in last.split()]
    return "its lower part is grey, as without data" if set(levels) == {(_NO_DATA, _NO_DATA)} else None


def _read_strictly(essence: bytes, colours: str, at_least: Size) -> tuple[Image.Image | None, str | None]:
    """Decode by the package that reports libjpeg's first warning; None where it cannot decode."""
    try:
        import simplejpeg  # noqa: PLC0415  # with numpy; a device has Pillow alone: the same pixels
    except ImportError:
        return None, None
    width, height = at_least
    warning = None
    for strict in (True, False):
        try:
            pixels = simplejpeg.decode_jpeg(
                essence, colours, min_width=width, min_height=height, strict=strict
            )
        except ValueError as error:
            warning = str(error)
        else:
            mode = {"GRAY": "L"}.get(colours, colours)
            return Image.frombuffer(mode, pixels.shape[1::-1], pixels, "raw", mode, 0, 1), warning
    return None, None  # no warning: it does not know all sampling factors, for example


def _by_strips(picture: Image.Image, mode: str, change: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Change a picture in strips: the intermediate pictures of a whole one take several times its memory."""
    rows = max(1, _STRIP_PIXELS // picture.width)
    if picture.height <= rows:
        return change(picture)
    changed = Image.new(mode, picture.size)
    for top in range(0, picture.height, rows):
        strip = picture.crop((0, top, picture.width, min(top + rows, picture.height)))
        changed.paste(change(strip), (0, top))
    return changed


def _decode_png(stream: PngStream, mode: str) -> Image.Image:
    check_pixel_data(stream)
    essence, size = png_essence(stream), (stream.width, stream.height)
    return _guarded(
        lambda: _by_strips(
            to_8_bits(_open(essence, size, "PNG")),
            mode,
            lambda strip: _compose(strip, stream).convert(mode),
        )
    )


def _open(
    image: bytes, size: Size, kind: str, at_least: Size | None = None, *, grey: bool = False
) -> Image.Image:
    with Image.open(io.BytesIO(image), formats=(kind,)) as picture:
        # The decoder must see the size that was checked.
        if picture.size != size:
            raise OSError(f"the size is {picture.size} for the decoder and {size} for the check")
        # All bytes at once: libjpeg cannot suspend in arithmetically coded data.
        picture.decodermaxblock = max(picture.decodermaxblock, len(image))
        if at_least is not None:
            picture.draft("L" if grey else "RGB", at_least)
        picture.load()
        return picture


def _guarded(decode: Callable[[], Image.Image]) -> Image.Image:
    """Call a decoder; raise ImageError for any error of it about the bytes."""
    try:
        return decode()
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  # Pillow raises errors of all kinds for hostile bytes
        # The message of UnidentifiedImageError contains the address of an object.
        got = "one that cannot be read" if isinstance(error, UnidentifiedImageError) else str(error)
        raise ImageError(expected="pixels that can be decoded", got=got, code="corrupt-image") from None


def _cmyk_to_rgb(picture: Image.Image, *, inverted: bool) -> Image.Image:
    # Pillow inverts all files: with Adobe's marker, the file itself has shares of light, otherwise of ink.
    light = ImageChops.invert(picture) if inverted else picture
    *colours, black = light.split()
    return Image.merge("RGB", [ImageChops.multiply(colour, black) for colour in colours])


def to_8_bits(picture: Image.Image) -> Image.Image:
    """Return a grey picture of 16 bits by its upper 8, one of 32 bits or floats by its range, others as is.

    Pillow itself would make all values above 255 white.
    """
    if picture.mode in {"I", "F"}:
        low, high = _extrema(picture)
        scale = _OPAQUE / (high - low) if high > low else 0.0
        return picture.convert("F").point(lambda value: value * scale - low * scale).convert("L")
    if not picture.mode.startswith("I;16"):
        return picture  # Pillow reads 16 bits of all but grey as their upper 8
    upper = 0 if picture.mode == "I;16B" else 1
    return Image.frombytes("L", picture.size, picture.tobytes()[upper::2])


def _extrema(picture: Image.Image) -> tuple[float, float]:
    """Return the lowest and the highest level of a picture in mode I or F; NaN is left out."""
    low, high = picture.getextrema()
    assert isinstance(low, int | float)
    assert isinstance(high, int | float)
    if math.isfinite(low) and math.isfinite(high):
        return low, high
    found = [
        level
        for top in range(picture.height)
        if (row := [*filter(math.isfinite, array("f", _row(picture, top).tobytes()))])
        for level in (min(row), max(row))
    ]
    return (min(found), max(found)) if found else (0.0, 0.0)


def _row(picture: Image.Image, top: int) -> Image.Image:
    return picture.crop((0, top, picture.width, top + 1))


def _compose(picture: Image.Image, stream: PngStream) -> Image.Image:
    """Compose transparent pixels with the background."""
    alpha = _alpha(picture, stream)
    if alpha is None:
        return picture
    background = Image.new("RGB", picture.size, (BACKGROUND,) * 3)
    return Image.composite(picture.convert("RGB"), background, alpha)


def _alpha(picture: Image.Image, stream: PngStream) -> Image.Image | None:
    if stream.transparency is None:
        return picture.getchannel("A") if "A" in picture.getbands() else None
    if stream.colour == PALETTE:
        levels = stream.transparency.ljust(256, bytes([_OPAQUE]))
        return Image.frombytes("L", picture.size, picture.tobytes()).point(list(levels))
    scale = _OPAQUE // ((1 << stream.depth) - 1) if stream.colour == GREY else 1
    most = (1 << stream.depth) - 1
    values = [
        (int.from_bytes(stream.transparency[at : at + 2]) & most) * scale
        for at in range(0, len(stream.transparency), 2)
    ]
    bands = (picture.convert("L") if stream.colour == GREY else picture).split()
    alpha = Image.new("L", picture.size)
    for band, value in zip(bands, values, strict=True):
        differs = [_OPAQUE * (level != value) for level in range(256)]
        alpha = ImageChops.lighter(alpha, band.point(differs))
    return alpha
