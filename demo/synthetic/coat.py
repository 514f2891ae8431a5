"""Fur: pattern, shading and hair, painted inside the outline of a part of the body."""

from random import Random

from demo.synthetic.pen import Pen, oval, path, shade
from demo.synthetic.traits import Coat

_Box = tuple[float, float, float, float]


def fur(pen: Pen, coat: Coat, box: _Box) -> None:
    """Paint the pattern of the coat, a shadow below and hair, over a box (left, top, right, bottom).

    Args:
        pen: A pen that is clipped to the outline of the part.
        coat: The coat; the same coat gives the same marks in the same box.
        box: Extent of the part in units of the pen.
    """
    rng = Random(coat.seed)
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    _PATTERNS.get(coat.pattern, _plain)(pen, coat, box, rng)
    pen.fill(oval(left + width * 0.5, bottom + height * 0.12, width * 0.7, height * 0.36), (0, 0, 0, 34))
    pen.fill(oval(left + width * 0.4, top, width * 0.5, height * 0.3), (255, 255, 255, 26))
    for _ in range(round(26 * (width * height) ** 0.5)):
        x, y = rng.uniform(left, right), rng.uniform(top, bottom)
        hair = (255, 255, 255, 40) if rng.random() < 0.5 else (0, 0, 0, 36)
        pen.line([(x, y), (x + rng.uniform(-0.06, 0.06), y + rng.uniform(0.06, 0.18))], hair, 0.03)


def _plain(pen: Pen, coat: Coat, box: _Box, rng: Random) -> None:
    """Leave the base colour as it is."""


def _stripes(pen: Pen, coat: Coat, box: _Box, rng: Random) -> None:
    left, top, right, bottom = box
    dark = shade(coat.base, 0.6)
    x = left + rng.uniform(0, 0.2)
    while x < right:
        reach, lean = top + (bottom - top) * rng.uniform(0.3, 0.75), rng.uniform(-0.15, 0.15)
        pen.line(
            path([(x, top), (x + lean, (top + reach) / 2), (x + lean / 2, reach)], 4),
            dark,
            rng.uniform(0.07, 0.13),
        )
        x += rng.uniform(0.22, 0.42)


def _patches(pen: Pen, coat: Coat, box: _Box, rng: Random) -> None:
    left, top, right, bottom = box
    for _ in range(3):
        reach = rng.uniform(0.25, 0.55) * (bottom - top)
        spot = oval(
            rng.uniform(left, right),
            rng.uniform(top, bottom),
            reach,
            reach * rng.uniform(0.6, 1),
            rng.random(),
        )
        pen.fill(spot, coat.second)


def _spots(pen: Pen, coat: Coat, box: _Box, rng: Random) -> None:
    left, top, right, bottom = box
    for _ in range(round(7 * ((right - left) * (bottom - top)) ** 0.5)):
        size = rng.uniform(0.05, 0.13)
        pen.fill(
            oval(rng.uniform(left, right), rng.uniform(top, bottom), size, size * 0.8), shade(coat.base, 0.55)
        )


_PATTERNS = {"stripes": _stripes, "patches": _patches, "spots": _spots}
