"""Create a camera from its specification, the value of `--camera`."""

import importlib
from pathlib import Path
from urllib.parse import parse_qsl

from device.cameras.base import Camera, CameraError
from device.cameras.hardware import OpenCvCamera, PicameraCamera
from device.cameras.replay import folder_camera

_ACCEPTED = (
    "folder:DIR[?loop=1&shuffle=SEED&part=0/3], drawn[?seed=3&look=dusk&count=100], usb:0, usb:/dev/video0 "
    "or picamera"
)
_SYNTHETIC = "demo.synthetic.camera"

Options = dict[str, str]


def open_camera(spec: str) -> Camera:
    """Return the camera of a specification, not yet open; open it with `async with`.

    Raises:
        CameraError: The specification is invalid, or this installation does not have the camera.
    """
    described, _, query = spec.partition("?")
    kind, _, place = described.partition(":")
    options = dict(parse_qsl(query, keep_blank_values=True))
    camera: Camera | None = None
    if kind == "folder" and place:
        camera = _folder(Path(place), options)
    elif described == "drawn":
        camera = _synthetic(options)
    elif kind == "usb" and place:
        camera = OpenCvCamera(int(place) if place.isdecimal() else place)
    elif described == "picamera":
        camera = PicameraCamera()
    elif spec and Path(spec).is_dir():
        return folder_camera(Path(spec))
    if camera is None:
        raise CameraError(f"unknown camera {spec!r}", hint=f"use {_ACCEPTED}")
    if options:  # each option that is known was removed when it was read
        raise CameraError(f"camera {spec!r} has no option {', '.join(options)}", hint=f"use {_ACCEPTED}")
    return camera


def _folder(directory: Path, options: Options) -> Camera:
    part = options.pop("part", "0/1")
    index, _, count = part.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise CameraError("camera option 'part'", expected="0/3, 1/3 or 2/3, for example", got=repr(part))
    return folder_camera(
        directory,
        loop=_number(options, "loop", maximum=1) == 1,
        shuffle=_number(options, "shuffle"),
        part=(int(index), int(count)),
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
            hint="choose another one with --camera: folder:DIR, usb:0 or picamera",
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
    if not text.isdecimal() or int(text) > maximum:
        raise CameraError(
            f"camera option {name!r}", expected=f"a whole number up to {maximum}", got=repr(text)
        )
    return int(text)
