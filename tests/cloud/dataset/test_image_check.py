"""Rules of cloud/dataset/image_check.py: which images are accepted, and how others are refused."""

import contextlib
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cloud.dataset.image_check import check_image
from schemas.errors import PermanentError
from tests.conftest import jpeg
from tests.nodes import truncated

MAX_PIXELS = 50_000_000


def png(size: tuple[int, int] = (30, 20), mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Image.new(mode, size).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize("image", [jpeg(1, (64, 48)), png((64, 48)), png((64, 48), "P"), png((64, 48), "LA")])
def test_whole_image_is_accepted(image):
    """JPEG and PNG of every kind are decoded; the header is returned."""
    header = check_image(image, MAX_PIXELS)
    assert (header.width, header.height) == (64, 48)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (b"", "expected JPEG or PNG, got an empty file"),
        (b"GIF89a", "expected JPEG or PNG"),
        (jpeg(1)[:20], "expected a JPEG frame header"),
        (truncated(jpeg(1)), "expected a whole jpeg, got image file is truncated"),
        (jpeg(1)[:-200], "expected a whole jpeg, got image file is truncated"),
        (png()[:-20], "expected a whole png"),
        (png().replace(b"IDAT", b"IDAX"), "expected a whole png"),
        (png()[:33], "expected a whole png"),
    ],
)
def test_g4_undecodable_image_is_refused(image, words):
    """Missing or damaged pixels are found even if the header is valid; the error has no object addresses."""
    with pytest.raises(PermanentError, match=f"^sample: {words}") as refusal:
        check_image(image, MAX_PIXELS, "sample")
    assert "0x" not in str(refusal.value)


def test_g4_too_many_pixels_are_refused_without_decoding(monkeypatch):
    """An image whose header claims too many pixels never reaches the decoder."""
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("it was opened"))
    bomb = png((1, 1)).replace((1).to_bytes(4) + (1).to_bytes(4), (30_000).to_bytes(4) * 2, 1)
    with pytest.raises(PermanentError, match="expected at most 50000000 pixels, got 30000 x 30000"):
        check_image(bomb, MAX_PIXELS)


@settings(deadline=None)
@given(st.sampled_from([jpeg(1), png()]), st.data())
def test_g4_damaged_images_are_accepted_or_refused(image, data):
    """Any damaged bytes are either accepted or raise PermanentError, never another error."""
    damaged = bytearray(image)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(image)))
    for candidate in (damaged, damaged[:cut]):
        with contextlib.suppress(PermanentError):
            assert check_image(bytes(candidate), MAX_PIXELS).pixels > 0
