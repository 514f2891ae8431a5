"""The value of `--camera`: a camera in one line."""

from pathlib import Path
from urllib.parse import parse_qsl

from device.cameras.base import Camera, CameraError
from device.cameras.hardware import OpenCvCamera, PicameraCamera
from device.cameras.replay import drawn_camera, folder_camera

_ACCEPTED = (
    "folder:DIR[?loop=1&shuffle=SEED&part=0/3], drawn[?seed=3&look=dusk&count=100], usb:0, usb:/dev/video0 "
    "or picamera"
)

Options = dict[str, str]


def open_camera(spec: str) -> Camera:
    """Return the camera that a command line describes; it is opened by `async with`.

    Raises:
        CameraError: The description is none of those that it lists.
    """
    described, _, query = spec.partition("?")
    kind, _, place = described.partition(":")
    options = dict(parse_qsl(query, keep_blank_values=True))
    camera: Camera | None = None
    if kind == "folder" and place:
        camera = _folder(Path(place), options)
    elif described == "drawn":
        camera = _drawn(options)
    elif kind == "usb" and place:
        camera = OpenCvCamera(int(place) if place.isdecimal() else place)
    elif described == "picamera":
        camera = PicameraCamera()
    elif spec and Path(spec).is_dir():
        return folder_camera(Path(spec))
    if camera is None or options:
        got = f"option {', '.join(options)}" if camera and options else "none of these"
        raise CameraError(f"camera {spec!r}", expected=_ACCEPTED, got=got)
    return camera


def _folder(directory: Path, options: Options) -> Camera:
    said = options.pop("part", "0/1")
    index, _, count = said.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise CameraError("part of the camera's folder", expected="0/3, 1/3 and so on", got=repr(said))
    return folder_camera(
        directory,
        loop=_number(options, "loop", most=1) == 1,
        shuffle=_number(options, "shuffle"),
        part=(int(index), int(count)),
    )


def _drawn(options: Options) -> Camera:
    look = options.pop("look", "daylight")
    return drawn_camera(seed=_number(options, "seed") or 0, look=look, count=_number(options, "count"))


def _number(options: Options, name: str, most: int = 2**32 - 1) -> int | None:
    """Take a whole number out of the options; None if it is not there."""
    text = options.pop(name, None)
    if text is None:
        return None
    if not text.isdecimal() or int(text) > most:
        raise CameraError(f"{name} of the camera", expected=f"a whole number up to {most}", got=repr(text))
    return int(text)
