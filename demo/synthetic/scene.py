"""Rooms and gardens around the animal. The unit is the height of the picture; x is 0 to `wide`."""

from random import Random

from demo.synthetic.palette import CARDS, CLOTHS, FLOORS, LAWNS, LEAVES, SKIES, WALLS, WOODS
from demo.synthetic.pen import Colour, Pen, Point, box, limb, mix, oval, path, shade
from demo.synthetic.things import INDOORS, ON_THE_FLOOR, OUTDOORS

_HAZE = (250, 246, 236)


def background(pen: Pen, rng: Random, wide: float, ground: float) -> None:
    """Paint a room or a garden with objects; the floor starts at y = ground."""
    if rng.random() < 0.68:
        _room(pen, rng, wide, ground)
        things = rng.sample(INDOORS, rng.randint(2, 4))
    else:
        _garden(pen, rng, wide, ground)
        things = rng.sample(OUTDOORS, rng.randint(1, 3))
    _light(pen, rng, wide)
    things += rng.choices(ON_THE_FLOOR, k=rng.randint(0, 2))
    for thing in things:
        thing(pen.within(rng.uniform(0, wide), ground), rng)


def foreground(pen: Pen, rng: Random, wide: float) -> None:
    """Paint an object in front of the animal, which hides a part of it."""
    rng.choice([_near_leaves, _near_leaves, _near_box, _near_grass, _near_rail, _near_blanket])(
        pen, rng, wide
    )


def _room(pen: Pen, rng: Random, wide: float, ground: float) -> None:
    wall = shade(rng.choice(WALLS), rng.uniform(0.6, 1.05))
    floor = shade(rng.choice(FLOORS), rng.uniform(0.7, 1.15))
    pen.fill(box(0, 0, wide, ground), wall)
    _wallpaper(pen, rng, wide, ground, mix(wall, rng.choice(CLOTHS), 0.25))
    pen.fill(box(0, ground, wide, 1), floor)
    vanish = rng.uniform(0.2, 0.8) * wide
    if rng.random() < 0.6:
        for plank in range(-9, 10):
            joint = [(vanish + plank * 0.1, ground), (vanish + plank * 0.28, 1)]
            pen.line(joint, shade(floor, 0.86), 0.006)
    pen.fill(box(0, ground - 0.035, wide, ground), shade(wall, rng.choice([0.8, 1.15])))


def _wallpaper(pen: Pen, rng: Random, wide: float, ground: float, ink: Colour) -> None:
    paper, gap = rng.choice(["plain", "bars", "dots", "tiles"]), rng.uniform(0.07, 0.16)
    columns, rows = range(round(wide / gap) + 1), range(round(ground / gap) + 1)
    if paper == "dots":
        for x, y in ((x, y) for x in columns for y in rows):
            pen.fill(oval(x * gap, (y + x % 2 / 2) * gap, gap * 0.18, gap * 0.18), ink)
    if paper in {"bars", "tiles"}:
        for x in columns:
            pen.line([(x * gap, 0), (x * gap, ground)], ink, gap * (0.4 if paper == "bars" else 0.06))
    if paper == "tiles":
        for y in rows:
            pen.line([(0, y * gap), (wide, y * gap)], ink, gap * 0.06)


def _garden(pen: Pen, rng: Random, wide: float, ground: float) -> None:
    sky = rng.choice(SKIES)
    for band in range(8):
        strip = box(0, ground * band / 8, wide, ground * (band + 1) / 8 + 0.01)
        pen.fill(strip, mix(sky, _HAZE, band / 9))
    for depth in (0.14, 0.06):
        hills = path([(wide * step / 5, ground - depth - rng.uniform(0, 0.1)) for step in range(6)])
        pen.fill([*hills, (wide, ground), (0, ground)], mix(rng.choice(LEAVES), sky, depth * 3.5))
    lawn = shade(rng.choice(LAWNS), rng.uniform(0.7, 1.1))
    pen.fill(box(0, ground, wide, 1), lawn)
    for _ in range(70):
        x, y = rng.uniform(0, wide), rng.uniform(ground, 1)
        tip = (x + rng.uniform(-0.02, 0.02), y - rng.uniform(0.01, 0.04))
        pen.line([(x, y), tip], shade(lawn, rng.choice([0.8, 1.15])), 0.005)


def _light(pen: Pen, rng: Random, wide: float) -> None:
    """Paint a slanting beam of light or shadow."""
    x, width, lean = rng.uniform(0, wide), rng.uniform(0.15, 0.5), rng.uniform(-0.5, 0.5)
    colour = (255, 244, 214, 46) if rng.random() < 0.6 else (10, 12, 30, 50)
    pen.fill([(x, 0), (x + width, 0), (x + width + lean, 1), (x + lean, 1)], colour)


def _near_leaves(pen: Pen, rng: Random, wide: float) -> None:
    leaf, edge = shade(rng.choice(LEAVES), rng.uniform(0.5, 1)), rng.choice([0, wide])
    inward = -1 if edge else 1
    for _ in range(rng.randint(3, 6)):
        y, reach = rng.uniform(0.3, 1.1), rng.uniform(0.2, 0.55) * inward
        spine: list[Point] = [(edge, y), (edge + reach * 0.5, y - 0.16), (edge + reach, y - 0.1)]
        pen.fill(limb(spine, [0.02, 0.12, 0.01]), shade(leaf, rng.uniform(0.8, 1.2)))


def _near_box(pen: Pen, rng: Random, wide: float) -> None:
    x, half, card = rng.uniform(0.15, 0.85) * wide, rng.uniform(0.12, 0.3), rng.choice(CARDS)
    pen.fill(box(x - half, rng.uniform(0.68, 0.85), x + half, 1.1), card, shade(card, 0.65), 0.01)


def _near_grass(pen: Pen, rng: Random, wide: float) -> None:
    leaf = rng.choice(LEAVES)
    for _ in range(40):
        x, rise = rng.uniform(0, wide), rng.uniform(0.08, 0.28)
        blade = [(x - 0.012, 1), (x + rng.uniform(-0.06, 0.06), 1 - rise), (x + 0.012, 1)]
        pen.fill(blade, shade(leaf, rng.uniform(0.7, 1.2)))


def _near_rail(pen: Pen, rng: Random, wide: float) -> None:
    wood, width = rng.choice(WOODS), rng.uniform(0.03, 0.07)
    if rng.random() < 0.5:
        y = rng.uniform(0.65, 0.85)
        pen.fill(box(0, y, wide, y + width * 1.5), wood, shade(wood, 0.7), 0.006)
    x = rng.uniform(0.1, 0.9) * wide
    pen.fill(box(x, 0, x + width, 1), wood, shade(wood, 0.7), 0.006)


def _near_blanket(pen: Pen, rng: Random, wide: float) -> None:
    cloth, y = rng.choice(CLOTHS), rng.uniform(0.68, 0.85)
    hem = path([(wide * step / 4, y + rng.uniform(-0.06, 0.06)) for step in range(5)])
    pen.fill([*hem, (wide, 1.05), (0, 1.05)], cloth)
    for step in range(1, 6):
        fold = [(wide * step / 6, y + 0.1), (wide * (step / 6 + 0.02), 1)]
        pen.line(fold, shade(cloth, 0.85), 0.012)
