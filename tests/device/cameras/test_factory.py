import sys

import pytest

from device.cameras.base import CameraError, CameraExhausted
from device.cameras.driver import DriverCamera
from device.cameras.factory import open_camera
from device.cameras.http_camera import HttpCamera
from device.cameras.mqtt_camera import MqttCamera
from schemas.text import without_secrets
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


async def test_a_folder_with_or_without_its_prefix(folder):
    """A path alone is a folder camera."""
    assert await sources(str(folder)) == await sources(f"folder:{folder}") == [f"{n}.jpg" for n in range(4)]


async def test_the_options_of_a_folder(folder):
    """loop, shuffle and part can be combined."""
    once = await sources(f"folder:{folder}?shuffle=7&part=1/2")
    assert len(once) == 2
    assert await sources(f"folder:{folder}?shuffle=7&part=1/2&loop=1") == once * 4


async def test_the_options_of_a_drawn_camera():
    """count, seed and look are accepted."""
    assert len(await sources("drawn?count=2&seed=3&look=dusk")) == 2


def test_the_drawn_camera_is_not_part_of_an_installed_device(monkeypatch):
    """Without the demonstration, `drawn` is an error that names the other cameras."""
    monkeypatch.setitem(sys.modules, "demo.synthetic.camera", None)
    with pytest.raises(CameraError, match=r"camera 'drawn' is not installed.*folder:DIR, usb:0 or picamera"):
        open_camera("drawn")


def test_hardware_cameras():
    """`usb:` takes a number or a path."""
    for spec in ("usb:0", "usb:/dev/video0", "picamera"):
        camera = open_camera(spec)
        assert isinstance(camera, DriverCamera)
        assert camera.source == spec


@pytest.mark.parametrize(
    "url", ["http://cam/video?channel=1&subtype=0", "https://u:p@cam:8080/capture?a=b?c#d", "HTTP://cam"]
)
def test_http_addresses_with_and_without_a_prefix(url):
    """A URL is a camera specification, with any query."""
    assert isinstance(open_camera(url), HttpCamera)
    assert isinstance(open_camera(f"usb:{url}"), HttpCamera)


@pytest.mark.parametrize(
    "url", ["rtsp://u:p@cam:554/live?channel=1&subtype=0#d", "rtsps://cam/x", "rtmp://cam/x"]
)
def test_video_addresses_with_and_without_a_prefix(url):
    """A URL of a video stream is read by OpenCV."""
    for spec in (url, f"usb:{url}"):
        camera = open_camera(spec)
        assert isinstance(camera, DriverCamera)
        assert camera.source == without_secrets(url)


@pytest.mark.parametrize(
    "topic", ["cam/1/jpeg", "frigate/+/person/snapshot", "cam/#", "a?b=c", "gleaner/v1/x"]
)
def test_mqtt_topics(topic):
    """A topic filter is taken as it is, at the device's broker or at another one."""
    assert isinstance(open_camera(f"mqtt:{topic}"), MqttCamera)
    camera = open_camera(f"mqtt://user:p%40ss@house:1884/{topic}")
    assert (camera._topic, camera._bus._address) == (topic, "broker house:1884")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("", "use folder:DIR"),
        ("webcam", "use folder:DIR"),
        ("folder:", "use folder:DIR"),
        ("usb:", "use folder:DIR"),
        ("usb:0?quality=3", "has no option quality"),
        ("drawn:3", "use folder:DIR"),
        ("drawn?sed=3", "has no option sed"),
        ("drawn?seed=x", "camera option 'seed': expected a whole number up to 4294967295, got 'x'"),
        ("drawn?seed=-1", "got '-1'"),
        ("drawn?count=many", "camera option 'count'"),
        ("drawn?look=noir", "has no look 'noir'; use one of daylight"),
        ("folder:/x?loop=2", "camera option 'loop': expected a whole number up to 1, got '2'"),
        ("folder:/x?part=3/3", "camera option 'part': expected 0/3, 1/3 or 2/3, for example, got '3/3'"),
        ("folder:/x?part=1", "got '1'"),
        ("folder:/x?part=0/0", "got '0/0'"),
        ("folder:/x?order=random", "has no option order"),
        ("picamera:1", "use folder:DIR"),
        ("http://", "no valid host and port"),
        ("usb:rtsp://:554/x", "no valid host and port"),
        ("ftp://u:secret@cam/x", "unknown camera 'ftp://***@cam/x'"),
        ("mqtt:", "use folder:DIR"),
        ("folder:/x?shuffle=" + "9" * 5000, "camera option 'shuffle'"),
        ("folder:/x?part=0/" + "9" * 5000, "camera option 'part'"),
        ("usb:4294967296", "unknown camera usb:4294967296; use usb:0"),
        ("usb:/caf\udce9.mp4", r"unknown camera usb:/caf\udce9.mp4; use usb:0"),
        ("usb:rtsp://cam/caf\udce9", r"camera URL rtsp://cam/caf\udce9 contains characters"),
        ("http://cam\u202e/x", r"camera URL http://cam\u202e/x contains characters"),
        ("http://cam..lan/x", "no valid host and port"),
        (f"http://{'a' * 64}.lan/x", "no valid host and port"),
        ("mqtt:a/#/b", "has a misplaced wildcard"),
        ("mqtt:a+/b", "has a misplaced wildcard"),
        ("mqtt:a\udce9", "has a character that MQTT does not allow"),
        ("mqtt://house:1883", "expected 1 to 65535 bytes"),
        ("mqtt:///topic", "no valid host and port"),
    ],
)
def test_a_wrong_specification_is_one_sentence(spec, words):
    """The error has the wrong value and what is accepted."""
    with pytest.raises(CameraError) as refusal:
        open_camera(spec)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert "secret" not in str(refusal.value)
