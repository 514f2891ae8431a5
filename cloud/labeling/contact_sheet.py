"""A contact sheet: photos with a number and some words each, as a picture or as a page."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from schemas.errors import PermanentError

_THUMBNAIL_PX = 160
_COLUMNS = 5
_GAP_PX = 8
_LINE_PX = 13
_INK, _PAPER = (30, 30, 30), (250, 250, 250)


@dataclass(frozen=True, slots=True)
class Frame:
    """A photo on a sheet.

    Attributes:
        image: encoded JPEG or PNG.
        lines: what stands below it, the most important first.
    """

    image: bytes
    lines: tuple[str, ...]


def write_sheet(path: Path, frames: Sequence[Frame]) -> None:
    """Write a contact sheet.

    Args:
        path: Ends in `.png` or `.html`.
        frames: Numbered from 1 in this order. Memory is that of their thumbnails.

    Raises:
        PermanentError: The path ends otherwise.
    """
    writers = {".png": _png, ".html": _html}
    if (writer := writers.get(path.suffix)) is None:
        raise PermanentError(f"sheet {path}", expected=f"a name with {' or '.join(writers)}", got=path.suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(writer(frames))


def thumbnail(image: bytes, size: tuple[int, int] = (_THUMBNAIL_PX, _THUMBNAIL_PX)) -> Image.Image:
    """Return a photo in RGB, shrunk or grown to fit into so many pixels."""
    with Image.open(io.BytesIO(image), formats=("JPEG", "PNG")) as picture:
        picture.draft("RGB", size)
        scale = min(size[0] / picture.width, size[1] / picture.height)
        fitted = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        return picture.convert("RGB").resize(fitted, Image.Resampling.BILINEAR)


def _png(frames: Sequence[Frame]) -> bytes:
    most_lines = max((len(frame.lines) for frame in frames), default=0)
    width, height = _THUMBNAIL_PX + _GAP_PX, _THUMBNAIL_PX + most_lines * _LINE_PX + 2 * _GAP_PX
    rows = max(1, -(-len(frames) // _COLUMNS))
    sheet = Image.new("RGB", (_COLUMNS * width + _GAP_PX, rows * height + _GAP_PX), _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(_LINE_PX - 2)
    for place, frame in enumerate(frames):
        left = place % _COLUMNS * width + _GAP_PX
        top = place // _COLUMNS * height + _GAP_PX
        small = thumbnail(frame.image)
        sheet.paste(
            small, (left + (_THUMBNAIL_PX - small.width) // 2, top + (_THUMBNAIL_PX - small.height) // 2)
        )
        for number, line in enumerate(_numbered(place, frame)):
            pen.text(
                (left, top + _THUMBNAIL_PX + number * _LINE_PX), _fitted(line, font), fill=_INK, font=font
            )
    out = io.BytesIO()
    sheet.save(out, "PNG")
    return out.getvalue()


def _html(frames: Sequence[Frame]) -> bytes:
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
    first, *others = frame.lines
    return [f"{place + 1}  {first}", *others]


def _fitted(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Cut a line to the width of a thumbnail."""
    while font.getlength(line) > _THUMBNAIL_PX:
        line = line[:-1]
    return line


def _embedded(image: bytes) -> str:
    out = io.BytesIO()
    thumbnail(image).save(out, "JPEG")
    return base64.b64encode(out.getvalue()).decode()
