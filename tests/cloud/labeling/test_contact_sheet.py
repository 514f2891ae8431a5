"""Rules of cloud/labeling/contact_sheet.py: numbered photos with captions, as PNG or HTML."""

import io
from pathlib import Path

import pytest
from PIL import Image

from cloud.labeling.contact_sheet import Frame, thumbnail, write_sheet
from schemas.errors import PermanentError


def plain(colour: str, size: tuple[int, int] = (40, 30)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "PNG")
    return out.getvalue()


def test_png_shows_every_photo(tmp_path: Path) -> None:
    """The photos are laid out in rows of five."""
    colours = ["red", "lime", "blue", "black", "magenta", "cyan"]
    frames = [Frame(plain(colour), ("cat 0.62", "x" * 200)) for colour in colours]
    write_sheet(tmp_path / "a" / "sheet.png", frames)
    with Image.open(tmp_path / "a" / "sheet.png") as sheet:
        assert sheet.width < 1000
        found = {pixel for _, pixel in sheet.convert("RGB").getcolors(1 << 20) or []}
        wanted = {Image.new("RGB", (1, 1), colour).getpixel((0, 0)) for colour in colours}
        assert wanted <= found
        assert sheet.getpixel((88, 88)) == (255, 0, 0)
        assert sheet.getpixel((88, sheet.height // 2 + 88)) == (0, 255, 255)


def test_html_is_self_contained_and_escaped(tmp_path: Path) -> None:
    """Thumbnails are embedded, and markup in a caption is escaped."""
    write_sheet(tmp_path / "sheet.html", [Frame(plain("red"), ("<script>",)), Frame(plain("blue"), ("dog",))])
    page = (tmp_path / "sheet.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2
    assert "1  &lt;script&gt;" in page
    assert "2  dog" in page
    assert "<script>" not in page


def test_an_empty_sheet_is_not_written(tmp_path: Path) -> None:
    """An empty page says nothing; the suffix is checked anyway."""
    for name in ("empty.html", "empty.png"):
        assert not write_sheet(tmp_path / name, [])
        assert not (tmp_path / name).exists()


def test_other_suffix_is_refused(tmp_path: Path) -> None:
    """The error names the allowed suffixes."""
    with pytest.raises(PermanentError, match=r"sheet\.gif; its name must end in \.png or \.html"):
        write_sheet(tmp_path / "sheet.gif", [])


@pytest.mark.parametrize(
    ("size", "fitted"), [((400, 100), (40, 10)), ((10, 20), (10, 20)), ((900, 1), (40, 1))]
)
def test_thumbnail_keeps_the_aspect_ratio(size: tuple[int, int], fitted: tuple[int, int]) -> None:
    """A thumbnail is as large as fits, and at least one pixel high and wide."""
    assert thumbnail(plain("red", size), (40, 20)).size == fitted


@pytest.mark.parametrize("suffix", [".png", ".html"])
def test_a_photo_that_cannot_be_decoded_leaves_the_others(tmp_path: Path, suffix: str) -> None:
    """Its place is grey, and the sheet is written."""
    frames = [Frame(image, ("caption",)) for image in (plain("red"), b"no photo", plain("red")[:30])]
    write_sheet(tmp_path / f"sheet{suffix}", frames)
    assert (tmp_path / f"sheet{suffix}").stat().st_size > 1000
    assert thumbnail(b"no photo").getcolors() == [(160 * 160, (128, 128, 128))]
