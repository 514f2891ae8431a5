"""Bodies and poses of the animals. The unit is the radius of the head; (0, 0) is the middle of the animal."""

from collections.abc import Callable
from random import Random
from typing import NamedTuple

from demo.synthetic.coat import fur
from demo.synthetic.head import front, side
from demo.synthetic.pen import Pen, Point, both_sides, limb, oval, ring, shade
from demo.synthetic.traits import Traits

_LINE = 0.05


class Pose(NamedTuple):
    """A pose of an animal, and its extent in head radii."""

    paint: Callable[[Pen, Traits, Random], None]
    width: float
    top: float
    bottom: float
    share: float
    """Relative frequency among the poses."""


def _solid(pen: Pen, animal: Traits, outline: list[Point], box: tuple[float, float, float, float]) -> None:
    pen.fill(outline, animal.coat.base, animal.coat.edge, _LINE)
    with pen.inside(outline) as marks:
        fur(marks, animal.coat, box)


def _leg(pen: Pen, animal: Traits, top: Point, foot: Point, *, far: bool = False) -> None:
    """Paint a leg with a paw that points to the right; far legs are darker."""
    coat, thick = animal.coat, 0.4 * animal.bulk**0.5
    colour = shade(coat.base, 0.78) if far else coat.base
    paw = shade(coat.second, 0.8 if far else 1) if coat.pattern in {"bib", "patches"} else colour
    (x, y), (fx, fy) = top, foot
    pen.fill(oval(fx + 0.1, fy - 0.1, thick * 0.72, 0.2), paw, coat.edge, _LINE)
    knee = ((x + fx) / 2 + 0.03, (y + fy) / 2)
    pen.fill(limb([top, knee, (fx, fy - 0.12)], [thick * 1.25, thick, thick * 0.8]), colour, coat.edge, _LINE)
    pen.fill(limb([top, knee, (fx, fy - 0.08)], [thick * 1.15, thick * 0.86, thick * 0.66]), colour)


def _tail(pen: Pen, animal: Traits, root: Point, *, along: float) -> None:
    """Paint a tail to the left; `along` is how far it lies on the ground before it rises."""
    length, thick = animal.tail
    lift, (x, y) = animal.tail_lift, root
    knots: list[Point] = [
        (x + 0.25, y),
        (x - length * (0.25 + along * 0.3), y + length * (0.12 - 0.35 * lift)),
        (x - length * 0.5, y + length * (0.1 - 0.7 * lift)),
        (x - length * (0.5 - 0.2 * lift), y - length * (0.9 * lift - 0.1)),
    ]
    pen.fill(
        limb(knots, [thick, thick * 1.1, thick * 0.4]), shade(animal.coat.ear, 1.0), animal.coat.edge, _LINE
    )


def _collar(pen: Pen, animal: Traits, left: Point, right: Point) -> None:
    if animal.coat.collar:
        middle = ((left[0] + right[0]) / 2, (left[1] + right[1]) / 2 + 0.14)
        pen.fill(limb([left, middle, right], [0.17, 0.19, 0.17]), animal.coat.collar)
        pen.fill(oval(middle[0], middle[1] + 0.14, 0.1, 0.1), (236, 200, 90))


def _head(pen: Pen, animal: Traits, rng: Random, at: Point) -> None:
    """Paint the head, facing the camera or to the right."""
    tilt = rng.gauss(0, 0.14)
    if rng.random() < 0.88:
        front(pen.within(*at, scale=1.2, turn=tilt), animal)
    else:
        side(pen.within(*at, scale=1.2, turn=tilt), animal)


def _bust(pen: Pen, animal: Traits, rng: Random) -> None:
    wide = 1.15 * animal.bulk
    outline = ring(both_sides([(0, 0.1), (0.55, 0.25), (wide, 1.2), (wide * 1.15, 2.6), (0, 2.8)]))
    _solid(pen, animal, outline, (-1.2, 0.2, 1.2, 2.6))
    if animal.coat.pattern == "bib":
        pen.fill(oval(0, 1.3, 0.5, 0.9), animal.coat.second)
    _collar(pen, animal, (-0.62, 0.62), (0.62, 0.62))
    front(pen.within(0, -0.45, turn=rng.gauss(0, 0.16)), animal)


def _profile(pen: Pen, animal: Traits, rng: Random) -> None:
    wide = animal.bulk
    outline = ring(
        [
            (-0.6, -0.5),
            (-0.75, 0.4),
            (-1.3 * wide, 1.5),
            (-1.4 * wide, 2.8),
            (1.0 * wide, 2.8),
            (0.8 * wide, 1.2),
            (0.5, 0),
        ]
    )
    _solid(pen, animal, outline, (-1.3, -0.2, 1.0, 2.7))
    _collar(pen, animal, (-0.78, 0.5), (0.6, 0.62))
    side(pen.within(0, -0.5, turn=rng.gauss(0, 0.16)), animal)


def _sit_front(pen: Pen, animal: Traits, rng: Random) -> None:
    wide, ground = 1.05 * animal.bulk, 2.3
    _tail(pen, animal, (-wide * 0.8, ground - 0.4), along=1)
    for hip in (-1, 1):
        thigh = oval(hip * wide * 0.85, ground - 0.6, 0.52, 0.66, -hip * 0.2)
        pen.fill(thigh, shade(animal.coat.base, 0.9), animal.coat.edge, _LINE)
        pen.fill(
            oval(hip * (wide + 0.2), ground - 0.08, 0.36, 0.19), animal.coat.base, animal.coat.edge, _LINE
        )
    torso = ring(
        both_sides(
            [
                (0, -0.7),
                (0.55, -0.5),
                (wide * 0.85, 0.5),
                (wide * 0.95, ground - 0.8),
                (0.5, ground - 0.2),
                (0, ground - 0.2),
            ]
        )
    )
    _solid(pen, animal, torso, (-1, -0.6, 1, ground))
    if animal.coat.pattern == "bib":
        pen.fill(oval(0, 0.5, 0.42, 0.8), animal.coat.second)
    for step in (-1, 1):
        _leg(pen.within(mirror=step < 0), animal, (0.36, 0.6), (0.34, ground))
    _collar(pen, animal, (-0.6, -0.48), (0.6, -0.48))
    front(pen.within(0, -1.45, scale=1.2, turn=rng.gauss(0, 0.13)), animal)


def _sit_side(pen: Pen, animal: Traits, rng: Random) -> None:
    bulk, ground = animal.bulk, 2.2
    _tail(pen, animal, (-1.05 * bulk, ground - 0.35), along=1)
    _leg(pen, animal, (0.6, 0.4), (0.85, ground), far=True)
    back: list[Point] = [(0.0, -1.3), (-0.5, -0.5), (-1.05 * bulk, 0.7), (-1.2 * bulk, 1.7), (-0.8, ground)]
    chest: list[Point] = [(0.2, ground - 0.15), (0.75, 1.1), (0.85 * bulk, 0.1), (0.75, -0.9)]
    _solid(pen, animal, ring([*back, *chest]), (-1.2, -1, 0.8, ground))
    _leg(pen, animal, (0.42, 0.4), (0.5, ground))
    pen.fill(oval(-0.42, ground - 0.7, 0.62, 0.6, 0.3), animal.coat.base)
    pen.line(oval(-0.42, ground - 0.7, 0.62, 0.6, 0.3)[12:], animal.coat.edge, _LINE)
    pen.fill(oval(-0.1, ground - 0.1, 0.46, 0.19), animal.coat.base, animal.coat.edge, _LINE)
    _collar(pen, animal, (-0.2, -0.85), (0.8, -0.7))
    _head(pen, animal, rng, (0.35, -1.45))


def _stand(pen: Pen, animal: Traits, rng: Random) -> None:
    deep, ground = 0.75 * animal.bulk, 1.0 + animal.leg
    stride = rng.uniform(-0.2, 0.3)
    _tail(pen, animal, (-1.6, -0.35), along=0.3)
    _leg(pen, animal, (-1.15, 0.2), (-1.15 - stride, ground), far=True)
    _leg(pen, animal, (0.95, 0.2), (1.1 - stride, ground), far=True)
    top: list[Point] = [(1.7, -1.25), (1.05, -0.72), (0, -0.55), (-1.1, -0.66), (-1.75, -0.35)]
    under: list[Point] = [
        (-1.65, 0.35),
        (-0.9, deep * 0.75),
        (0.3, deep),
        (1.2, deep * 0.9),
        (1.7, 0.1),
        (2.0, -0.6),
    ]
    _solid(pen, animal, ring([*top, *under]), (-1.8, -0.7, 1.8, deep))
    _leg(pen, animal, (-1.4, 0.2), (-1.45 + stride, ground))
    _leg(pen, animal, (1.2, 0.3), (1.25 + stride, ground))
    _collar(pen, animal, (1.25, -0.95), (2.0, -0.5))
    _head(pen, animal, rng, (1.8, -1.35))


def _lie(pen: Pen, animal: Traits, rng: Random) -> None:
    deep, ground = 1.0 * animal.bulk, 1.0
    _tail(pen, animal, (-1.9, ground - 0.35), along=1)
    top: list[Point] = [
        (1.2, -0.6),
        (0.2, ground - 1.35 * deep),
        (-1.2, ground - 1.45 * deep),
        (-2.1, ground - 0.7),
    ]
    under: list[Point] = [(-1.8, ground - 0.05), (0, ground), (1.5, ground), (1.8, 0.2)]
    _solid(pen, animal, ring([*top, *under]), (-2, ground - 1.4 * deep, 1.7, ground))
    pen.fill(oval(-1.2, ground - 0.5, 0.66, 0.48, -0.2), animal.coat.base)
    pen.line(oval(-1.2, ground - 0.5, 0.66, 0.48, -0.2)[12:24], animal.coat.edge, _LINE)
    pen.fill(oval(-0.8, ground - 0.08, 0.46, 0.19), animal.coat.base, animal.coat.edge, _LINE)
    reach = rng.uniform(0, 0.9) * animal.leg
    for step in (0.3, 0):
        paw = limb(
            [
                (1.1, ground - 0.25 - step / 3),
                (1.7 + reach - step, ground - 0.2),
                (2.0 + reach - step, ground - 0.14),
            ],
            [0.4, 0.36, 0.34],
        )
        pen.fill(paw, animal.coat.base, animal.coat.edge, _LINE)
        pen.fill(
            oval(2.0 + reach - step, ground - 0.14, 0.26, 0.2), animal.coat.base, animal.coat.edge, _LINE
        )
    _collar(pen, animal, (1.0, 0.0), (1.9, 0.15))
    _head(pen, animal, rng, (1.45, -0.7))


POSES = (
    Pose(_bust, 2.9, -2.0, 1.9, 0.36),
    Pose(_profile, 3.0, -2.0, 1.9, 0.05),
    Pose(_sit_front, 3.2, -3.1, 2.4, 0.33),
    Pose(_sit_side, 3.6, -3.1, 2.3, 0.1),
    Pose(_stand, 5.4, -3.0, 2.1, 0.08),
    Pose(_lie, 5.2, -2.4, 1.1, 0.08),
)
