import pytest

from device.cameras.base import CameraError, CameraExhausted
from device.cameras.factory import open_camera
from device.cameras.hardware import OpenCvCamera, PicameraCamera
from tests.conftest import jpeg


async def sources(spec):
    taken = []
    async with open_camera(spec) as camera:
        while len(taken) < 8:
            try:
                taken.append((await camera.capture()).source.rpartition("/")[2])
            except CameraExhausted:
                break
    return taken


@pytest.fixture
def folder(tmp_path):
    for number in range(4):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(number))
    return tmp_path


async def test_a_folder_with_and_without_its_prefix(folder):
    """A path alone is a folder too."""
    assert await sources(str(folder)) == await sources(f"folder:{folder}") == [f"{n}.jpg" for n in range(4)]


async def test_the_options_of_a_folder(folder):
    """loop, shuffle and part do what they say together."""
    once = await sources(f"folder:{folder}?shuffle=7&part=1/2")
    assert len(once) == 2
    assert await sources(f"folder:{folder}?shuffle=7&part=1/2&loop=1") == once * 4


async def test_the_options_of_a_drawn_camera():
    """count, seed and look are numbers and a name."""
    assert len(await sources("drawn?count=2&seed=3&look=dusk")) == 2


def test_hardware_is_named():
    """A number is a USB camera's, a path is a device's."""
    assert isinstance(open_camera("usb:0"), OpenCvCamera)
    assert isinstance(open_camera("usb:/dev/video0"), OpenCvCamera)
    assert isinstance(open_camera("picamera"), PicameraCamera)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("", "expected folder:DIR"),
        ("webcam", "expected folder:DIR"),
        ("folder:", "expected folder:DIR"),
        ("usb:", "expected folder:DIR"),
        ("usb:0?quality=3", "got option quality"),
        ("drawn:3", "expected folder:DIR"),
        ("drawn?sed=3", "got option sed"),
        ("drawn?seed=x", "seed of the camera: expected a whole number up to 4294967295, got 'x'"),
        ("drawn?seed=-1", "got '-1'"),
        ("drawn?count=many", "count of the camera"),
        ("drawn?look=noir", "expected a look of"),
        ("folder:/x?loop=2", "loop of the camera: expected a whole number up to 1, got '2'"),
        ("folder:/x?part=3/3", "expected 0/3, 1/3 and so on, got '3/3'"),
        ("folder:/x?part=1", "got '1'"),
        ("folder:/x?part=0/0", "got '0/0'"),
        ("folder:/x?order=random", "got option order"),
        ("picamera:1", "expected folder:DIR"),
    ],
)
def test_a_wrong_description_is_one_sentence(spec, words):
    """What a person mistyped is said with what would have been right."""
    with pytest.raises(CameraError) as refusal:
        open_camera(spec)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)
