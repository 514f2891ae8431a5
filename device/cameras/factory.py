"""Create a camera from its specification, the value of `--camera`."""

import importlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from bus.config import Broker
from device.cameras.address import check_url, is_camera_url, is_http, scheme_of
from device.cameras.base import Camera, CameraError
from device.cameras.hardware import Shot, opencv_camera, picamera
from device.cameras.http_camera import HttpCamera
from device.cameras.mqtt_camera import MqttCamera
from device.cameras.replay import folder_camera
from schemas.text import without_secrets

_ACCEPTED = (
    "folder:DIR[?loop=1&shuffle=SEED&part=0/3], drawn[?seed=3&look=dusk&count=100], usb:0, usb:/dev/video0, "
    "http://HOST/PATH, rtsp://HOST/PATH, mqtt:TOPIC or picamera"
)
_SYNTHETIC = "demo.synthetic.camera"
_MQTT_PORT = 1883
# No more digits than the largest has: Python refuses to convert some thousand of them.
_NUMBER = re.compile("[0-9]{1,10}")
_PART = re.compile("([0-9]{1,10})/([0-9]{1,10})")
_QUOTED_CHARS = 40

Options = dict[str, str]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a camera may need besides its specification.

    Args:
        shot: Size and quality.
        broker: The device's broker, for `mqtt:TOPIC`.
        password: Of the broker.
    """

    shot: Shot = field(default_factory=Shot)
    broker: Broker = field(default_factory=Broker)
    password: str | None = None


def open_camera(spec: str, surroundings: Surroundings = Surroundings()) -> Camera:
    """Return the camera of a specification, not yet open; open it with `async with`.

    Raises:
        CameraError: The specification is invalid, or this installation does not have the camera.
    """
    kind, _, place = spec.partition(":")
    if is_camera_url(spec):
        return _network(spec, surroundings)
    # Before options are split off: the query of a URL, and a ? in a topic, belong to the camera.
    if kind == "usb" and scheme_of(place):
        return _network(place, surroundings)
    if kind == "mqtt" and place:
        return _mqtt(spec, place, surroundings)
    return _local(spec, surroundings.shot)


def _local(spec: str, shot: Shot) -> Camera:
    described, _, query = spec.partition("?")
    kind, _, place = described.partition(":")
    options = dict(parse_qsl(query, keep_blank_values=True))
    camera: Camera | None = None
    if kind == "folder" and place:
        camera = _folder(Path(place), options)
    elif described == "drawn":
        camera = _synthetic(options)
    elif kind == "usb" and place:
        camera = opencv_camera(int(place) if _NUMBER.fullmatch(place) else place, shot)
    elif described == "picamera":
        camera = picamera(shot)
    elif spec and Path(spec).is_dir():
        return folder_camera(Path(spec))
    shown = without_secrets(spec)
    if camera is None:
        raise CameraError(f"unknown camera {shown!r}", hint=f"use {_ACCEPTED}")
    if options:  # each option that is known was removed when it was read
        raise CameraError(f"camera {shown!r} has no option {', '.join(options)}", hint=f"use {_ACCEPTED}")
    return camera


def _network(url: str, surroundings: Surroundings) -> Camera:
    check_url(url)
    return HttpCamera(url, surroundings.shot) if is_http(url) else opencv_camera(url, surroundings.shot)


def _mqtt(spec: str, topic: str, surroundings: Surroundings) -> Camera:
    if not topic.startswith("//"):
        return MqttCamera(topic, surroundings.broker, surroundings.password)
    check_url(spec)
    # Not urlsplit's path: the wildcard # would begin a fragment, and a ? a query.
    address, _, topic = topic[2:].partition("/")
    parts = urlsplit(f"mqtt://{address}")
    broker = Broker(
        host=parts.hostname or "",
        port=parts.port or _MQTT_PORT,
        username=None if parts.username is None else unquote(parts.username),
    )
    return MqttCamera(topic, broker, None if parts.password is None else unquote(parts.password))


def _folder(directory: Path, options: Options) -> Camera:
    part = options.pop("part", "0/1")
    if (found := _PART.fullmatch(part)) is None or int(found[1]) >= int(found[2]):
        got = repr(part[:_QUOTED_CHARS])
        raise CameraError("camera option 'part'", expected="0/3, 1/3 or 2/3, for example", got=got)
    return folder_camera(
        directory,
        loop=_number(options, "loop", maximum=1) == 1,
        shuffle=_number(options, "shuffle"),
        part=(int(found[1]), int(found[2])),
    )


def _synthetic(options: Options) -> Camera:
    try:
        # Found by name, because the demonstration is above the device side and no device has it installed.
        module = importlib.import_module(_SYNTHETIC)
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("demo"):
            raise
        raise CameraError(
            "camera 'drawn' is not installed: it belongs to the demonstration, which only a checkout has",
            hint="choose another one with --camera: folder:DIR, usb:0 or picamera, for example",
        ) from None
    look = options.pop("look", "daylight")
    camera: Camera = module.synthetic_camera(
        seed=_number(options, "seed") or 0, look=look, count=_number(options, "count")
    )
    return camera


def _number(options: Options, name: str, maximum: int = 2**32 - 1) -> int | None:
    """Remove a whole number from the options and return it; None if it is not given."""
    text = options.pop(name, None)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text) or int(text) > maximum:
        got = repr(text[:_QUOTED_CHARS])
        raise CameraError(f"camera option {name!r}", expected=f"a whole number up to {maximum}", got=got)
    return int(text)
