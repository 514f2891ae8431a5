"""Make a photo of any camera one that an edge takes: format, size, bytes."""

import importlib
import io
from collections.abc import Mapping
from dataclasses import replace

from PIL import Image, ImageOps, UnidentifiedImageError

from schemas.distribution import install_command
from schemas.image.facts import ImageError, ImageLimits, check_bytes, check_pixels
from schemas.image.inspection import inspect_image, normal_form
from schemas.image.signatures import format_name
from schemas.pixels.decoding import BACKGROUND, Decoded, decode_photo, to_8_bits

MAX_PHOTO_BYTES = 3 * 1024 * 1024
MAX_PHOTO_PIXELS = 16_000_000
MAX_SIDE_PX = 2048

SOURCE_LIMITS = ImageLimits(
    max_bytes=64 * 1024 * 1024,
    max_pixels=80_000_000,
    max_side=65_500,
    max_scan_pixels=1_600_000_000,
    max_decoded_bytes=512 * 1024 * 1024,
)
"""Of a file before it is scaled down: a PNG of 12 megapixels, a phone's JPEG of 50."""

_DECODERS = {  # Pillow's name of a format, and the module that reads it
    "WebP": ("WEBP", "PIL.WebPImagePlugin"),
    "AVIF": ("AVIF", "PIL.AvifImagePlugin"),
    "HEIC": ("HEIF", "pillow_heif"),
    "HEIF": ("HEIF", "pillow_heif"),
    "TIFF": ("TIFF", "PIL.TiffImagePlugin"),
    "BMP": ("BMP", "PIL.BmpImagePlugin"),
    "GIF": ("GIF", "PIL.GifImagePlugin"),
}
_SUBFILE_TYPE, _REDUCED = 254, 1  # tag of TIFF: the picture is a smaller version of another one
_DNG_VERSION = 50706
_BITS_PER_SAMPLE, _TWELVE = 258, 12
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
_MAX_PIXEL_BYTES = 8  # 16 bits, four channels
QUALITY = 90
_SMALLER = 0.75
_ATTEMPTS = 8


def fit_photo(
    image: bytes,
    max_bytes: int = MAX_PHOTO_BYTES,
    max_side: int = MAX_SIDE_PX,
    *,
    source: ImageLimits = SOURCE_LIMITS,
    whole: bool = False,
    quality: int = QUALITY,
) -> bytes:
    """Return a photo that an edge takes: unchanged if it is one, else scaled down as an upright JPEG.

    A JPEG or PNG that decoders read differently is returned in its normal form, and so is one that is small
    enough without metadata, a video behind it, or what else no decoder reads. WebP, AVIF, TIFF, BMP and GIF
    are converted, HEIC too if the package `pillow-heif` is installed. Costs up to some seconds of CPU and
    up to 512 MiB for the largest photos: call it in a thread.

    Args:
        image: Any bytes.
        max_bytes: Of the result.
        max_side: Longer side in pixels, of a photo that has to be scaled down.
        source: Photos that exceed these limits are refused.
        whole: Refuse a photo with damaged data instead of scaling down what is left of it.
        quality: JPEG quality, 1 to 100, of a photo that is scaled down.

    Raises:
        ImageError: It cannot be read as a photo, or it is too large even for this.
    """
    limits = ImageLimits(max_bytes=max_bytes, max_pixels=min(MAX_PHOTO_PIXELS, source.max_pixels))
    try:
        facts = inspect_image(image, limits)
    except ImageError as error:
        if (essence := _essence(image, error, limits, source)) is not None:
            return essence
        picture = _open(image, source, error, max_bytes, whole=whole)
        return encode_photo(picture, max_bytes, max_side, quality=quality)
    return image if facts.exact else normal_form(image, limits)


def open_photo(
    image: bytes, limits: ImageLimits = SOURCE_LIMITS, *, at_least: tuple[int, int] | None = None
) -> Decoded:
    """Decode a photo of any format that `fit_photo` takes.

    Args:
        image: Any bytes.
        limits: Budgets.
        at_least: As for `decode_photo`.

    Raises:
        ImageError: It is not acceptable, or its pixels cannot be decoded.
    """
    if (decoder := _DECODERS.get(format_name(image) or "")) is None:
        return decode_photo(image, limits, at_least=at_least)
    return Decoded(_convert(image, *decoder, limits), None, None)


def _essence(image: bytes, refusal: ImageError, limits: ImageLimits, source: ImageLimits) -> bytes | None:
    """Return the normal form of a photo that is too large only by what is not decoded, such as a video."""
    if refusal.code != "too-large":
        return None
    try:
        plain = normal_form(image, replace(limits, max_bytes=source.max_bytes))
    except ImageError:
        return None
    return plain if len(plain) <= limits.max_bytes else None


def _open(
    image: bytes, source: ImageLimits, refusal: ImageError, max_bytes: int, *, whole: bool
) -> Image.Image:
    try:
        decoded = open_photo(image, source, at_least=(MAX_SIDE_PX, MAX_SIDE_PX))
    except ImageError as error:
        # A JPEG or PNG that is refused for more than its size keeps its reason.
        is_other = format_name(image) in _DECODERS
        raise error if is_other or refusal.code in {"too-large", "too-many-pixels"} else refusal from None
    facts = decoded.facts
    if facts is not None and len(image) > max(max_bytes, _MAX_PIXEL_BYTES * facts.pixels):
        raise refusal  # it is large for another reason than its pixels
    if whole and facts is not None and decoded.lost is not None:
        raise ImageError(expected=f"a whole {facts.format}", got=decoded.lost, code="corrupt-image")
    return decoded.picture


def _convert(image: bytes, decoder: str, module: str, limits: ImageLimits) -> Image.Image:
    """Decode another format by Pillow, which alone reads these."""
    check_bytes(image, limits)
    try:
        # Only this one: otherwise Pillow loads all decoders that it has.
        plugin = importlib.import_module(module)
        if decoder == "HEIF":
            plugin.register_heif_opener()
        with Image.open(io.BytesIO(image), formats=(decoder,)) as picture:
            check_pixels(*picture.size, limits)
            _check_no_raw(picture)
            upright = _to_levels(ImageOps.exif_transpose(picture), getattr(picture, "tag_v2", {}))
            if not upright.has_transparency_data or (decoder == "BMP" and _is_never_seen(upright)):
                return upright.convert("RGB")
            upright = upright.convert("RGBA")
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise ImageError(
            expected=f"at most {limits.max_pixels} pixels", got=f"more in {decoder}", code="too-many-pixels"
        ) from None
    except ModuleNotFoundError:
        raise ImageError(
            expected="JPEG or PNG",
            got=decoder,
            hint=f"{install_command('heic')}, or convert it",
            code="unsupported-image",
        ) from None
    except Exception as error:  # noqa: BLE001  # Pillow raises errors of all kinds for hostile bytes
        # The message of UnidentifiedImageError contains the address of an object.
        got = "one that cannot be read" if isinstance(error, UnidentifiedImageError) else str(error)
        raise ImageError(expected=f"a whole {decoder}", got=got, code="corrupt-image") from None
    background = Image.new("RGBA", upright.size, (BACKGROUND,) * 4)
    return Image.alpha_composite(background, upright).convert("RGB")


def _to_levels(picture: Image.Image, tags: Mapping[int, object]) -> Image.Image:
    """Return a picture of more than 8 bits as one of 8: what a TIFF says about its levels, Pillow ignores."""
    if picture.mode not in {"I", "F"} and not picture.mode.startswith("I;16"):
        return picture
    if tags.get(_BITS_PER_SAMPLE) == (_TWELVE,):
        picture = picture.point(lambda value: value * 16)
    grey = to_8_bits(picture)
    return ImageOps.invert(grey) if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else grey


def _is_never_seen(picture: Image.Image) -> bool:
    """Return True if all pixels are transparent: in a BMP the fourth byte may be unused, and zero."""
    return picture.mode == "RGBA" and picture.getchannel("A").getextrema() == (0, 0)


def _check_no_raw(picture: Image.Image) -> None:
    """Refuse a TIFF with the data of a sensor: its first picture is a small preview, or no picture."""
    tags = getattr(picture, "tag_v2", {})
    if _DNG_VERSION in tags or tags.get(_SUBFILE_TYPE) == _REDUCED:
        raise ImageError(
            expected="JPEG or PNG",
            got="a camera's raw file, or the preview of one",
            hint="export it as JPEG",
            code="unsupported-image",
        )


def encode_photo(picture: Image.Image, max_bytes: int, max_side: int, *, quality: int = QUALITY) -> bytes:
    """Return a picture as JPEG, scaled down until it has at most that many bytes.

    Args:
        picture: In mode RGB.
        max_bytes: Of the result.
        max_side: Longer side of the result in pixels.
        quality: JPEG quality, 1 to 100.

    Raises:
        ImageError: It does not get small enough.
    """
    side = float(min(max_side, max(picture.size)))
    for _ in range(_ATTEMPTS):
        scale = side / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        out = io.BytesIO()
        picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0).save(out, "JPEG", quality=quality)
        if out.tell() <= max_bytes:
            return out.getvalue()
        side *= _SMALLER
    raise ImageError(expected=f"a photo of at most {max_bytes} bytes", got=out.tell(), code="too-large")
