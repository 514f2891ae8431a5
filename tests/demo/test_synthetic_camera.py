import pytest

from demo.synthetic import CLASSES, LOOKS
from demo.synthetic.camera import synthetic_camera
from device.cameras.base import CameraError
from tests.device.conftest import frames


async def test_the_same_seed_draws_the_same_bytes():
    """The frames depend only on the seed, and the label is the class that was drawn."""
    one, again, other = [await frames(synthetic_camera(seed=seed, count=3)) for seed in (4, 4, 5)]
    assert one == again
    assert {frame.image for frame in one}.isdisjoint(frame.image for frame in other)
    assert all(frame.label in CLASSES and frame.label in frame.source for frame in one)


async def test_a_look_changes_the_picture_and_not_the_class():
    """Each look gives another picture of the same class."""
    taken = [(await frames(synthetic_camera(look=look, count=1)))[0] for look in LOOKS]
    assert len({frame.image for frame in taken}) == len(LOOKS) > 1
    assert len({frame.label for frame in taken}) == 1


async def test_count_limits_the_photos():
    """The camera is exhausted after `count` photos, and never without it."""
    assert len(await frames(synthetic_camera(count=2))) == 2
    assert len(await frames(synthetic_camera(), most=4)) == 4


def test_an_unknown_look_is_an_error():
    """The error lists the looks."""
    with pytest.raises(CameraError, match="daylight"):
        synthetic_camera(look="noir")
