"""Small pictures of every kind that a decoder must read: colours, depths, scans, orientations, alpha."""

import base64
import io
import zlib
from collections.abc import Iterator

from PIL import Image, ImageCms

from schemas.image.exif import EXIF_HEADER, orientation_only
from schemas.image.png import EXIF_AT
from schemas.image.png_pixels import ADAM7, chunk_bytes
from schemas.image.signatures import PNG_SIGNATURE

SIZE = (40, 24)
ORIENTATIONS = range(1, 9)

# Pillow and simplejpeg read arithmetic coding and do not write it: `cjpeg -arithmetic`, 16 x 16 pixels.
_QUANTISATION = (
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywtQFdBRkxOUlNSMj5a"
    "YVpQYEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT0//"
)
_ARITHMETIC = (
    "yQARCAAQABADASIAAhEBAxEB/8wACgAQEAUBEBEF/9oADAMBAAIRAxEAPwD+y99XKb0whB4x8cOEtYqjfV/AmrwVodtjkj3EMndILA+GF94U"
    "IWTxTU1jrxQ57lhoYQPUeNIwR48UaXRVuJP29YanDuVzbBfA/9k="
)
_PROGRESSIVE_ARITHMETIC = (
    "ygARCAAQABADASIAAhEBAxEB/8wABgAQARD/2gAMAwEAAhADEAAAAf17Wdlg/8wABBAF/9oACAEBAAEFAhUfW203xO6o/8wABBEF/9oACAED"
    "AQE/ARTdOUT/zAAEEQX/2gAIAQIBAT8BONmlZ2z/zAAEEAX/2gAIAQEABj8C1xbE/8wABBAF/9oACAEBAAE/IVDLWPhFC00PILxifA0g0P/a"
    "AAwDAQACAAMAAAAQDP/MAAQRBf/aAAgBAwEBPxByf52vdID/zAAEEQX/2gAIAQIBAT8QVw9B4T+OkP/MAAQQBf/aAAgBAQABPxAfXyVvmqV9"
    "XFC+xvXfA3LqfSRC/9k="
)


def scene(size: tuple[int, int] = SIZE, mode: str = "RGB") -> Image.Image:
    """Return a picture without symmetry: a turned or mirrored one is another."""
    gradient = Image.linear_gradient("L").resize(size)
    bands = [
        gradient,
        gradient.transpose(Image.Transpose.ROTATE_90).resize(size),
        gradient.point(lambda v: 255 - v),
    ]
    picture = Image.merge("RGB", bands)
    picture.paste((200, 30, 60), (2, 2, size[0] // 3, size[1] // 4))
    return picture.convert(mode)


def encoded(picture: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """Return an encoded picture."""
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def png(
    depth: int, colour: int, pixels: bytes, size: tuple[int, int], *extra: bytes, interlace: int = 0
) -> bytes:
    """Return a PNG of any header with raw rows, and chunks between header and pixels."""
    header = size[0].to_bytes(4) + size[1].to_bytes(4) + bytes([depth, colour, 0, 0, interlace])
    parts = [PNG_SIGNATURE, chunk_bytes(b"IHDR", header), *extra]
    return b"".join((*parts, chunk_bytes(b"IDAT", zlib.compress(pixels)), chunk_bytes(b"IEND", b"")))


def odd_jpegs() -> Iterator[tuple[str, bytes]]:
    """Yield JPEGs of every kind by name."""
    for mode in ("L", "RGB", "CMYK"):
        yield f"jpeg-{mode}", encoded(scene(mode=mode))
        yield f"jpeg-{mode}-progressive", encoded(scene(mode=mode), progressive=True)
    yield "jpeg-cmyk-not-inverted", without_segment(encoded(scene(mode="CMYK")), 0xEE)
    for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
        yield f"jpeg-{subsampling}", encoded(scene(), subsampling=subsampling, quality=95)
    yield "jpeg-restart", encoded(scene(), restart_marker_blocks=1)
    yield "jpeg-optimised", encoded(scene(), optimize=True, quality=20)
    yield "jpeg-rgb-stored", encoded(scene(), keep_rgb=True)
    yield "jpeg-1x1", encoded(scene((1, 1)))
    yield "jpeg-odd-size", encoded(scene((33, 17)))
    for size in ((1, 5000), (5000, 1), (9, 3000), (3000, 9)):
        yield f"jpeg-{size[0]}x{size[1]}", encoded(scene(size))
    yield "jpeg-arithmetic", base64.b64decode(_QUANTISATION + _ARITHMETIC)
    yield "jpeg-arithmetic-progressive", base64.b64decode(_QUANTISATION + _PROGRESSIVE_ARITHMETIC)
    for orientation in ORIENTATIONS:
        yield f"jpeg-exif-{orientation}", encoded(scene(), exif=EXIF_HEADER + orientation_only(orientation))
    yield "jpeg-profile", encoded(scene(), icc_profile=bytes(100_000))
    several = [scene(), scene().transpose(Image.Transpose.ROTATE_180)]
    yield "jpeg-mpo", encoded(several[0], "MPO", save_all=True, append_images=several[1:])
    little = (
        b"II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00"
    )
    yield "jpeg-exif-little-endian", encoded(scene(), exif=EXIF_HEADER + little)


def odd_pngs() -> Iterator[tuple[str, bytes]]:
    """Yield PNGs of every kind by name."""
    translucent = scene(mode="RGBA")
    translucent.putalpha(scene(mode="L").point(lambda value: 255 - value))
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        yield f"png-{mode}", encoded(translucent.convert(mode), "PNG")
    for orientation in ORIENTATIONS:
        yield f"png-exif-{orientation}", encoded(scene(), "PNG", exif=orientation_only(orientation))
    later = [scene().transpose(Image.Transpose.ROTATE_180)]
    yield "png-animated", encoded(scene(), "PNG", save_all=True, append_images=later)
    yield (
        "png-animated-behind",
        encoded(scene(), "PNG", save_all=True, append_images=later, default_image=True),
    )
    for size in ((1, 5000), (5000, 1)):
        yield f"png-{size[0]}x{size[1]}", encoded(scene(size, "L"), "PNG")
    for colours in (2, 4, 16, 200):
        palette = scene().quantize(colours)
        yield f"png-palette-{colours}", encoded(palette, "PNG")
        alphas = bytes(range(0, 250, 70))[:colours]
        yield f"png-palette-alpha-{colours}", encoded(palette, "PNG", transparency=alphas)
    yield "png-colour-key", encoded(scene(), "PNG", transparency=scene().getpixel((5, 5)))
    yield "png-grey-key", encoded(scene(mode="L"), "PNG", transparency=scene(mode="L").getpixel((5, 5)))
    yield from _raw_pngs()


def _raw_pngs() -> Iterator[tuple[str, bytes]]:
    """Yield what Pillow does not write."""
    ramp = bytes(range(0, 256, 4))
    for depth in (1, 2, 4):
        rows = b"".join(b"\x00" + ramp[at : at + depth] for at in range(0, 48, 8))
        yield f"png-grey-{depth}-bits", png(depth, 0, rows, (8, 6))
        key = chunk_bytes(b"tRNS", (1).to_bytes(2))
        yield f"png-grey-{depth}-bits-key", png(depth, 0, rows, (8, 6), key)
        palette = chunk_bytes(b"PLTE", bytes(range(10, 16)))  # two entries, fewer than the pixels use
        yield f"png-short-palette-{depth}", png(depth, 3, rows, (8, 6), palette)
        filler = chunk_bytes(b"tRNS", bytes([(1 << depth) - 1, 9]))
        yield f"png-palette-alpha-{depth}-bits", png(depth, 3, rows, (8, 6), palette, filler)
    deep = b"".join(b"\x00" + bytes((row * 37 + at * 11) % 256 for at in range(8 * 8)) for row in range(6))
    for name, colour, columns in (("grey", 0, 32), ("rgb", 2, 10), ("grey-alpha", 4, 16), ("rgba", 6, 8)):
        width = 1 + columns * {0: 2, 2: 6, 4: 4, 6: 8}[colour]
        rows = b"".join(b"\x00" + deep[65 * row + 1 : 65 * row + width] for row in range(6))
        yield f"png-{name}-16-bits", png(16, colour, rows, (columns, 6))
    key = chunk_bytes(b"tRNS", deep[1:3])
    yield (
        "png-grey-16-bits-key",
        png(16, 0, b"".join(deep[65 * r : 65 * r + 65] for r in range(6)), (32, 6), key),
    )
    # One pixel of 8 bits: the first of seven passes has it, the others are empty.
    yield "png-interlaced", png(8, 2, b"\x00\x10\x80\xf0", (1, 1), interlace=1)
    for mode, colour in (("L", 0), ("LA", 4), ("RGB", 2), ("RGBA", 6)):
        picture = scene(mode=mode)
        yield f"png-interlaced-{mode}", png(8, colour, _passes(picture), picture.size, interlace=1)


def _passes(picture: Image.Image) -> bytes:
    """Return the rows of a picture of 8 bits in the seven passes of an interlaced PNG."""
    size, data, (width, height) = len(picture.getbands()), picture.tobytes(), picture.size
    return b"".join(
        b"\x00" + b"".join(data[(row * width + at) * size :][:size] for at in range(left, width, across))
        for left, top, across, down in ADAM7
        if left < width
        for row in range(top, height, down)
    )


def swapped_profile() -> bytes:
    """Return a colour profile whose red and green are swapped: who applies it sees other colours."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile.replace(b"rXYZ", b"----").replace(b"gXYZ", b"rXYZ").replace(b"----", b"gXYZ")


def managed_pictures() -> Iterator[tuple[str, bytes]]:
    """Yield pictures with colours that a browser shows differently from their plain values."""
    yield "jpeg-swapped-profile", encoded(scene(), icc_profile=swapped_profile())
    yield "png-swapped-profile", encoded(scene(), "PNG", icc_profile=swapped_profile())
    linear = chunk_bytes(b"gAMA", (100_000).to_bytes(4))
    points = (
        31_270,
        32_900,
        30_000,
        60_000,
        64_000,
        33_000,
        15_000,
        6_000,
    )
    swapped = chunk_bytes(b"cHRM", b"".join(point.to_bytes(4) for point in points))
    for name, extra in (
        ("gamma", linear),
        ("chromaticities", linear + swapped),
        ("hdr", chunk_bytes(b"cICP", bytes([9, 16, 0, 1]))),
    ):
        whole = encoded(scene(), "PNG")
        yield f"png-{name}", whole[:EXIF_AT] + extra + whole[EXIF_AT:]


def odd_pictures() -> dict[str, bytes]:
    """Return all pictures by name."""
    return dict((*odd_jpegs(), *odd_pngs(), *managed_pictures()))


def segments(jpeg: bytes) -> list[tuple[int, int]]:
    """Return the ranges of an intact JPEG's segments, up to the first scan's header."""
    found, at = [], 2
    while at + 4 <= len(jpeg) and jpeg[at] == 0xFF:
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4])
        found.append((at, end))
        if jpeg[at + 1] == 0xDA:
            break
        at = end
    return found


def without_segment(jpeg: bytes, marker: int) -> bytes:
    """Return an intact JPEG without its segments of a kind."""
    cut = [(start, end) for start, end in segments(jpeg) if jpeg[start + 1] == marker]
    for start, end in reversed(cut):
        jpeg = jpeg[:start] + jpeg[end:]
    return jpeg


def chunks(image: bytes) -> list[bytes]:
    """Return the chunks of an intact PNG, with length and checksum."""
    found, at = [], len(PNG_SIGNATURE)
    while at < len(image):
        end = at + 12 + int.from_bytes(image[at : at + 4])
        found.append(image[at:end])
        at = end
    return found
