"""How a foreign model expects its pixels: size, range of values, order of channels. No TensorFlow."""

import math
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np

from schemas.errors import PermanentError

Order = Literal["rgb", "bgr", "gray"]
ORDERS: tuple[Order, ...] = get_args(Order)
MAX_SIDE_PX = 4096
GREY_WEIGHTS = (0.299, 0.587, 0.114)
"""Luma of ITU-R BT.601, as Pillow and OpenCV compute grey pixels."""


class AdoptionError(PermanentError):
    """The file is not a model that can be adopted; the message has the reason and what to do."""


def first_line(error: BaseException) -> str:
    """Return the first line of a library's error, at most 300 characters."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """From the pixels of a photo, RGB in 0 to 255, to a network's input: `(value - offset) / scale`.

    Attributes:
        offset: one number, or one per channel in the network's order.
        scale: the same; not 0.
        order: of the channels.
        size_px: height and width; None for those of the network's input.
    """

    offset: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    order: Order = "rgb"
    size_px: tuple[int, int] | None = None

    def apply(self, images: Any) -> Any:
        """Apply it to images `[N, H, W, 3]`, a TensorFlow or a Keras tensor; `[N, H, W, 1]` for grey.

        Only slices and arithmetic: they are the same for both kinds of tensor, and LiteRT has all of them.
        """
        if self.order == "bgr":
            images = images[..., ::-1]
        elif self.order == "gray":
            red, green, blue = (images[..., channel : channel + 1] for channel in range(3))
            images = red * GREY_WEIGHTS[0] + green * GREY_WEIGHTS[1] + blue * GREY_WEIGHTS[2]
        if self.offset != (0.0,):
            images = images - np.array(self.offset, np.float32)
        return images if self.scale == (1.0,) else images / np.array(self.scale, np.float32)


PRESETS = MappingProxyType(
    {
        "raw": Preprocessing(),
        "unit": Preprocessing(scale=(255.0,)),
        "signed": Preprocessing(offset=(127.5,), scale=(127.5,)),
        "imagenet": Preprocessing(offset=(123.675, 116.28, 103.53), scale=(58.395, 57.12, 57.375)),
        "caffe": Preprocessing(offset=(103.939, 116.779, 123.68), order="bgr"),
    }
)
"""Named ranges: 0 to 255; 0 to 1; -1 to 1; Torchvision's mean and deviation; Caffe's mean, BGR."""

FORM = f"{', '.join(PRESETS)}, then size=, offset=, scale= or order= after commas"


def parse_preprocessing(text: str) -> Preprocessing:
    """Parse `NAME[,size=224][,offset=127.5][,scale=127.5][,order=bgr]`.

    A size is `N` or `WIDTHxHEIGHT`; offset and scale are one number or three, separated by `/`.

    Raises:
        AdoptionError: The text has another form.
    """
    name, *changes = text.split(",")
    if name not in PRESETS:
        if "=" not in name:
            raise AdoptionError("preprocessing", expected=FORM, got=repr(text))
        name, changes = "raw", [name, *changes]
    chosen = PRESETS[name]
    for change in changes:
        chosen = _changed(chosen, change)
    channels = 1 if chosen.order == "gray" else 3
    for field in ("offset", "scale"):
        if len(getattr(chosen, field)) not in {1, channels}:
            raise AdoptionError(
                f"preprocessing {field}",
                expected=f"1 or {channels} numbers for order={chosen.order}",
                got=text,
            )
    return chosen


def _changed(chosen: Preprocessing, change: str) -> Preprocessing:
    key, _, value = change.partition("=")
    if key == "size":
        return replace(chosen, size_px=_size(value))
    if key == "order" and value in ORDERS:
        return replace(chosen, order=ORDERS[ORDERS.index(value)])
    if key == "offset":
        return replace(chosen, offset=_numbers(key, value))
    if key == "scale":
        return replace(chosen, scale=_numbers(key, value))
    expected = f"order=, one of {', '.join(ORDERS)}" if key == "order" else FORM
    raise AdoptionError("preprocessing", expected=expected, got=repr(change))


def _size(text: str) -> tuple[int, int]:
    parts = text.split("x")
    if len(parts) not in {1, 2} or not all(part.isascii() and part.isdecimal() for part in parts):
        raise AdoptionError("preprocessing size", expected="pixels, as 224 or 320x240", got=repr(text))
    width, height = int(parts[0]), int(parts[-1])
    if not (1 <= width <= MAX_SIDE_PX and 1 <= height <= MAX_SIDE_PX):
        raise AdoptionError("preprocessing size", expected=f"1 to {MAX_SIDE_PX} pixels", got=repr(text))
    return height, width


def _numbers(key: str, text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split("/"))
    except ValueError:
        numbers = ()
    if not numbers or not all(map(math.isfinite, numbers)) or (key == "scale" and 0.0 in numbers):
        rule = "numbers other than 0" if key == "scale" else "numbers"
        raise AdoptionError(f"preprocessing {key}", expected=f"{rule}, separated by /", got=repr(text))
    return numbers
