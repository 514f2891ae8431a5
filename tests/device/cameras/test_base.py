import io

from PIL import Image, ImageOps

from device.cameras.base import motion
from tests.conftest import jpeg


def picture(shade: int) -> bytes:
    out = io.BytesIO()
    Image.new("L", (320, 240), shade).save(out, "PNG")
    return out.getvalue()


def test_a_still_scene_has_no_motion():
    """The same frame differs by nothing, and its re-encoding by nearly nothing."""
    assert motion(jpeg(1), jpeg(1)) == 0
    assert motion(jpeg(1, quality=95), jpeg(1, quality=60)) < 0.02


def test_an_inverted_scene_is_all_motion():
    """Black against white is 1, and any picture against its negative is far from still."""
    assert motion(picture(0), picture(255)) == 1
    negative = io.BytesIO()
    with Image.open(io.BytesIO(jpeg(1))) as photo:
        ImageOps.invert(photo).save(negative, "PNG")
    assert motion(jpeg(1), negative.getvalue()) > 0.2


def test_frames_of_other_sizes_and_formats_compare():
    """A camera that changes its resolution is compared by what it shows."""
    assert motion(jpeg(1, (640, 480)), jpeg(1, (320, 240))) < 0.1


def test_what_cannot_be_decoded_differs_from_everything():
    """A broken frame is told as motion: it becomes a photo, and the edge says what is wrong with it."""
    assert motion(jpeg(1), b"\xff\xd8 no picture") == 1
    assert motion(jpeg(1)[:200], jpeg(1)) == 1
