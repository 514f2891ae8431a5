"""Draw a contact sheet of numbered photos with captions, as PNG or HTML."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from bus.files.atomic_file import write_atomic
from schemas.errors import PermanentError
from schemas.image import ImageError
from schemas.pixels import SOURCE_LIMITS, decode_photo

_THUMBNAIL_PX = 160
_COLUMNS = 5
_GAP_PX = 8
_LINE_PX = 13
_INK, _PAPER, _MISSING = (30, 30, 30), (250, 250, 250), (128, 128, 128)


@dataclass(frozen=True, slots=True)
class Frame:
    """A photo on a sheet.

    Attributes:
        image: encoded JPEG or PNG.
        lines: the caption, at least one line.
    """

    image: bytes
    lines: tuple[str, ...]


def write_sheet(path: Path, frames: Sequence[Frame]) -> bool:
    """Write a contact sheet, and return True; without a frame write nothing, and return False.

    Args:
        path: Its suffix decides the format: `.png` or `.html`. Missing parent folders are created.
        frames: Numbered from 1 in this order. All thumbnails are held in memory.

    Raises:
        PermanentError: The path has another suffix.
    """
    writers = {".png": _png, ".html": _html}
    if (writer := writers.get(path.suffix)) is None:
        raise PermanentError(
            f"cannot write contact sheet {path}", hint=f"its name must end in {' or '.join(writers)}"
        )
    if frames:
        write_atomic(path, writer(frames))
    return bool(frames)


def thumbnail(image: bytes, size: tuple[int, int] = (_THUMBNAIL_PX, _THUMBNAIL_PX)) -> Image.Image:
    """Return a photo in RGB, upright, scaled to fit into a size in pixels with its aspect ratio.

    A photo that cannot be decoded is a grey area: it must not keep a person from the others.
    """
    try:
        # A JPEG is decoded at a fraction of its size, but no smaller than this.
        picture, facts, _ = decode_photo(image, SOURCE_LIMITS, at_least=size)
    except ImageError:
        return Image.new("RGB", size, _MISSING)
    assert facts is not None
    scale = min(size[0] / facts.width, size[1] / facts.height)
    fitted = (max(1, round(facts.width * scale)), max(1, round(facts.height * scale)))
    return picture.resize(fitted, Image.Resampling.BILINEAR)


def encoded_thumbnail(image: bytes, size: tuple[int, int] = (_THUMBNAIL_PX, _THUMBNAIL_PX)) -> bytes:
    """Return the thumbnail of a photo as JPEG."""
    out = io.BytesIO()
    thumbnail(image, size).save(out, "JPEG")
    return out.getvalue()


def _png(frames: Sequence[Frame]) -> bytes:
    most_lines = max((len(frame.lines) for frame in frames), default=0)
    width, height = _THUMBNAIL_PX + _GAP_PX, _THUMBNAIL_PX + most_lines * _LINE_PX + 2 * _GAP_PX
    rows = max(1, -(-len(frames) // _COLUMNS))
    sheet = Image.new("RGB", (_COLUMNS * width + _GAP_PX, rows * height + _GAP_PX), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_LINE_PX - 2)
    for place, frame in enumerate(frames):
        left = place % _COLUMNS * width + _GAP_PX
        top = place // _COLUMNS * height + _GAP_PX
        small = thumbnail(frame.image)
        sheet.paste(
            small, (left + (_THUMBNAIL_PX - small.width) // 2, top + (_THUMBNAIL_PX - small.height) // 2)
        )
        for number, line in enumerate(_numbered(place, frame)):
            draw.text(
                (left, top + _THUMBNAIL_PX + number * _LINE_PX), _fitted(line, font), fill=_INK, font=font
            )
    out = io.BytesIO()
    sheet.save(out, "PNG")
    return out.getvalue()


def _html(frames: Sequence[Frame]) -> bytes:
    # The images are embedded and every caption is escaped, so that the page can be mailed and opened safely.
    figures = (
        f'<figure><img alt="photo {place + 1}" src="data:image/jpeg;base64,{_embedded(frame.image)}">'
        f"<figcaption>{'<br>'.join(escape(line) for line in _numbered(place, frame))}</figcaption></figure>"
        for place, frame in enumerate(frames)
    )
    style = (
        "body{font:13px sans-serif;display:flex;flex-wrap:wrap;gap:8px}"
        f"figure{{margin:0;width:{_THUMBNAIL_PX}px;overflow-wrap:anywhere}}"
    )
    page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Contact sheet</title><style>{style}'
    return f"{page}</style>{''.join(figures)}</html>\n".encode()


def _numbered(place: int, frame: Frame) -> list[str]:
    first, *rest = frame.lines
    return [f"{place + 1}  {first}", *rest]


def _fitted(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Truncate a line to the width of a thumbnail."""
    while font.getlength(line) > _THUMBNAIL_PX:
        line = line[:-1]
    return line


def _embedded(image: bytes) -> str:
    return base64.b64encode(encoded_thumbnail(image)).decode()
