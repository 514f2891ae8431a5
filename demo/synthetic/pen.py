"""Smooth shapes on an image, in the local coordinates of an object."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple, Self

from PIL import Image, ImageDraw

Point = tuple[float, float]
Colour = tuple[int, ...]
"""Red, green, blue and optionally alpha, each 0..255."""


class Place(NamedTuple):
    """Affine transform from local coordinates (y points down) to pixels of the image."""

    xx: float
    xy: float
    yx: float
    yy: float
    dx: float
    dy: float

    def at(self, x: float, y: float) -> Point:
        """Return the pixel position of a local point."""
        return self.xx * x + self.xy * y + self.dx, self.yx * x + self.yy * y + self.dy

    def within(
        self, x: float = 0, y: float = 0, *, scale: float = 1, turn: float = 0, mirror: bool = False
    ) -> "Place":
        """Return the transform of a part at (x, y): scaled, turned clockwise (radians), mirrored in x."""
        cos, sin = math.cos(turn) * scale, math.sin(turn) * scale
        side = -1 if mirror else 1
        dx, dy = self.at(x, y)
        return Place(
            (self.xx * cos + self.xy * sin) * side,
            self.xy * cos - self.xx * sin,
            (self.yx * cos + self.yy * sin) * side,
            self.yy * cos - self.yx * sin,
            dx,
            dy,
        )

    @property
    def scale(self) -> float:
        """Pixels per local unit."""
        return math.hypot(self.xx, self.yx)


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """Interpolate two colours; `share` is 0..1."""
    return tuple(round(a + (b - a) * share) for a, b in zip(one[:3], other[:3], strict=True))


def shade(colour: Colour, factor: float) -> Colour:
    """Return a darker (factor below 1) or lighter colour (above 1)."""
    return tuple(min(255, round(channel * factor)) for channel in colour[:3])


@cache
def _weights(steps: int) -> tuple[tuple[float, float, float, float], ...]:
    """Return the Catmull-Rom weights of four neighbouring knots at `steps` places between the middle two."""
    places = [step / steps for step in range(steps)]
    return tuple(
        (
            (-t + 2 * t**2 - t**3) / 2,
            (2 - 5 * t**2 + 3 * t**3) / 2,
            (t + 4 * t**2 - 3 * t**3) / 2,
            (t**3 - t**2) / 2,
        )
        for t in places
    )


def _spans(knots: Sequence[Point], steps: int) -> list[Point]:
    return [
        (a * p[0] + b * q[0] + c * r[0] + d * s[0], a * p[1] + b * q[1] + c * r[1] + d * s[1])
        for p, q, r, s in zip(knots, knots[1:], knots[2:], knots[3:], strict=False)
        for a, b, c, d in _weights(steps)
    ]


def ring(knots: Sequence[Point], steps: int = 6) -> list[Point]:
    """Return a smooth closed outline through the knots (Catmull-Rom spline)."""
    return _spans([knots[-1], *knots, knots[0], knots[1]], steps)


def path(knots: Sequence[Point], steps: int = 8) -> list[Point]:
    """Return a smooth open line through the knots (Catmull-Rom spline)."""
    return [*_spans([knots[0], *knots, knots[-1]], steps), knots[-1]]


def both_sides(right: Sequence[Point]) -> list[Point]:
    """Return a closed outline symmetric in x from its right half, given from top to bottom."""
    left = [(-x, y) for x, y in reversed(right) if x]
    return [*right, *left]


def limb(knots: Sequence[Point], widths: Sequence[float]) -> list[Point]:
    """Return the outline of a tail or leg: a line through the knots with a width at each of them."""
    spine = path(knots)
    spans = len(spine) - 1
    left: list[Point] = []
    right: list[Point] = []
    for number, (x, y) in enumerate(spine):
        (x0, y0), (x1, y1) = spine[max(0, number - 1)], spine[min(spans, number + 1)]
        length = math.hypot(x1 - x0, y1 - y0) or 1
        whole, part = divmod(number * (len(widths) - 1) / spans, 1)
        near, far = widths[int(whole)], widths[min(int(whole) + 1, len(widths) - 1)]
        half = (near + (far - near) * part) / 2 / length
        left.append((x - (y1 - y0) * half, y + (x1 - x0) * half))
        right.append((x + (y1 - y0) * half, y - (x1 - x0) * half))
    return left + right[::-1]


def box(left: float, top: float, right: float, bottom: float) -> list[Point]:
    """Return the outline of an upright rectangle."""
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


_CIRCLE = [(math.cos(turn * math.tau / 26), math.sin(turn * math.tau / 26)) for turn in range(26)]


def oval(x: float, y: float, rx: float, ry: float, turn: float = 0) -> list[Point]:
    """Return the outline of an ellipse, turned clockwise by `turn` radians."""
    cos, sin = math.cos(turn), math.sin(turn)
    return [(x + rx * c * cos - ry * s * sin, y + rx * c * sin + ry * s * cos) for c, s in _CIRCLE]


class Pen:
    """Draws shapes in the local coordinates of one place on an image."""

    def __init__(self, image: Image.Image, place: Place) -> None:
        self.image = image
        self.place = place
        self._ink = ImageDraw.Draw(image, "RGBA")

    def within(
        self, x: float = 0, y: float = 0, *, scale: float = 1, turn: float = 0, mirror: bool = False
    ) -> Self:
        """Return a pen for a part; see `Place.within`."""
        return type(self)(self.image, self.place.within(x, y, scale=scale, turn=turn, mirror=mirror))

    def fill(
        self, outline: Sequence[Point], colour: Colour, edge: Colour | None = None, width: float = 0
    ) -> None:
        """Fill an outline; with an edge colour also draw its edge, `width` units wide."""
        pixels = [self.place.at(x, y) for x, y in outline]
        self._ink.polygon(pixels, fill=colour)
        if edge and width:
            self._ink.line([*pixels, pixels[0]], fill=edge, width=max(1, round(width * self.place.scale)))

    def line(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        """Draw an open line, `width` units wide and at least one pixel."""
        pixels = [self.place.at(x, y) for x, y in points]
        self._ink.line(pixels, fill=colour, width=max(1, round(width * self.place.scale)))

    @contextmanager
    def inside(self, outline: Sequence[Point]) -> Iterator["Pen"]:
        """Yield a pen that is clipped to the outline."""
        pixels = [self.place.at(x, y) for x, y in outline]
        box = _bounds(pixels, self.image.size)
        if box is None:
            yield Pen(Image.new("RGB", (1, 1)), self.place)
            return
        left, top = box[:2]
        layer = self.image.crop(box)
        yield Pen(layer, self.place._replace(dx=self.place.dx - left, dy=self.place.dy - top))
        mask = Image.new("L", layer.size)
        ImageDraw.Draw(mask).polygon([(x - left, y - top) for x, y in pixels], fill=255)
        self.image.paste(layer, box, mask)


def _bounds(pixels: Sequence[Point], size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Return the pixel box around an outline, clipped to the image; None if it is outside."""
    across, down = [x for x, _ in pixels], [y for _, y in pixels]
    left, top = max(0, math.floor(min(across))), max(0, math.floor(min(down)))
    right, bottom = min(size[0], math.ceil(max(across)) + 1), min(size[1], math.ceil(max(down)) + 1)
    return (left, top, right, bottom) if left < right and top < bottom else None
