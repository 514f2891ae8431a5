import io

from PIL import Image, ImageOps

from device.cameras.base import motion
from tests.conftest import jpeg


def picture(shade: int) -> bytes:
    out = io.BytesIO()
    Image.new("L", (320, 240), shade).save(out, "PNG")
    return out.getvalue()


def test_a_still_scene_has_no_motion():
    """The same frame has motion 0, its re-encoding nearly 0."""
    assert motion(jpeg(1), jpeg(1)) == 0
    assert motion(jpeg(1, quality=95), jpeg(1, quality=60)) < 0.02


def test_an_inverted_scene_has_much_motion():
    """Black against white is 1, and a picture against its negative is above 0.2."""
    assert motion(picture(0), picture(255)) == 1
    negative = io.BytesIO()
    with Image.open(io.BytesIO(jpeg(1))) as photo:
        ImageOps.invert(photo).save(negative, "PNG")
    assert motion(jpeg(1), negative.getvalue()) > 0.2


def test_frames_of_different_sizes_are_comparable():
    """The same scene in another resolution has nearly no motion."""
    assert motion(jpeg(1, (640, 480)), jpeg(1, (320, 240))) < 0.1


def test_a_frame_that_cannot_be_decoded_has_full_motion():
    """A broken frame has motion 1, so that it is published and the edge reports the error."""
    assert motion(jpeg(1), b"\xff\xd8 no picture") == 1
    assert motion(jpeg(1)[:200], jpeg(1)) == 1
