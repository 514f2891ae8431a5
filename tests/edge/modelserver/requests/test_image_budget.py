"""Rules of edge/modelserver/requests/image_budget.py: what costs too much is refused before it is decoded."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge.modelserver.requests.image_budget import within_budget
from edge.modelserver.status import Code, ServingError
from schemas.image import ImageLimits
from tests.pictures.odd import encoded, scene, segments

LIMITS = ImageLimits(max_pixels=10_000)
LARGE = encoded(scene((200, 100)))
PROGRESSIVE = encoded(scene(), progressive=True)
MANY_SCANS = PROGRESSIVE[:-2] + PROGRESSIVE[segments(PROGRESSIVE)[-1][0] : -2] * 300 + b"\xff\xd9"


def run(*values: object, dtype: type = object) -> list[Any]:
    """Run a version that returns its feed."""
    runner = within_budget(lambda servable, feeds, fetches, timeout_s: list(feeds.values()), LIMITS)
    feed = np.empty(len(values), dtype)
    feed[:] = values
    return runner(None, {"image": feed}, [], None)  # type: ignore[arg-type]  # the version is not looked at


@pytest.mark.parametrize("image", [LARGE, MANY_SCANS, encoded(scene((200, 100)), "PNG"), PROGRESSIVE[:40]])
def test_g4_a_costly_image_is_an_invalid_argument(image):
    """Too many pixels or scans, also together with a good photo, and inside a tf.Example."""
    for values in ((image,), (encoded(scene()), image)):
        with pytest.raises(ServingError) as caught:
            run(*values)
        assert caught.value.code == Code.INVALID_ARGUMENT


@pytest.mark.parametrize("size", [(20_001, 1), (1, 20_001)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_g4_a_long_side_is_an_invalid_argument(size, kind):
    """Scaling takes memory for the longer side, however few pixels; the sentence names the limit."""
    longest = ImageLimits().max_side
    runner = within_budget(lambda servable, feeds, fetches, timeout_s: [], ImageLimits())
    feed = np.array([encoded(Image.new("L", size), kind)], object)
    with pytest.raises(ServingError, match=f"sides of at most {longest} pixels") as caught:
        runner(None, {"image": feed}, [], None)  # type: ignore[arg-type]  # the version is not looked at
    assert caught.value.code == Code.INVALID_ARGUMENT


@pytest.mark.parametrize("image", [LARGE, MANY_SCANS])
def test_an_image_inside_another_string_is_checked(image):
    """A tf.Example holds its image among other bytes."""
    with pytest.raises(ServingError):
        run(b"\x0a\x90\x01\x0a\x05image" + image + b"\x12\x00")


def test_no_image_inside_another_string_is_unchecked():
    """A costly image behind many good ones is not let through: the string is refused."""
    small = encoded(scene())
    assert run(b"text" + small * 16)
    with pytest.raises(ServingError, match="more than 16 images"):
        run(b"text" + small * 16 + LARGE)


@pytest.mark.parametrize(
    "value", [b"", b"text", b"\x0a\xff\xd8\xff\x00 no image", encoded(scene()), b"\xff" * 50]
)
def test_other_strings_are_the_versions_affair(value):
    """A model may take anything."""
    assert run(value)[0].tolist() == [value]
    assert run(1.5, dtype=float)[0].tolist() == [1.5]


def test_an_image_is_fed_in_its_normal_form():
    """A JPEG without end marker gets one: TensorFlow would refuse what LiteRT's decoder accepts."""
    whole = encoded(scene())
    assert run(b"text", whole[:-2], whole)[0].tolist() == [b"text", whole, whole]
