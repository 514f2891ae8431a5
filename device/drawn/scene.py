"""Rooms and gardens around a drawn animal; 1 is the picture's height, x runs from 0 to `wide`."""

from random import Random

from device.drawn.pen import Colour, Pen, Point, limb, mix, oval, path, ring, shade

_WALLS: tuple[Colour, ...] = (
    (214, 222, 216),
    (232, 216, 190),
    (176, 196, 214),
    (206, 180, 176),
    (150, 164, 150),
    (238, 234, 226),
    (112, 124, 140),
    (196, 176, 206),
)
_FLOORS: tuple[Colour, ...] = (
    (168, 122, 82),
    (120, 86, 62),
    (196, 170, 140),
    (128, 132, 138),
    (170, 74, 66),
    (84, 108, 134),
)
_CLOTHS: tuple[Colour, ...] = (
    (166, 66, 62),
    (62, 104, 128),
    (204, 160, 70),
    (92, 122, 86),
    (128, 96, 146),
    (222, 206, 186),
    (74, 74, 86),
)
_LEAVES: tuple[Colour, ...] = ((70, 128, 66), (48, 98, 62), (120, 150, 70), (86, 140, 104))
_WOODS: tuple[Colour, ...] = ((136, 92, 58), (98, 66, 44), (186, 148, 104), (230, 226, 218))


def box(left: float, top: float, right: float, bottom: float) -> list[Point]:
    """Return the outline of an upright rectangle."""
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def background(pen: Pen, rng: Random, wide: float, ground: float) -> None:
    """Paint a room or a garden with things in it; the floor begins at y = ground."""
    if rng.random() < 0.68:
        _room(pen, rng, wide, ground)
        things = rng.sample(
            [_window, _picture, _shelf, _lamp, _sofa, _sofa, _plant, _curtain, _cushion, _rug],
            rng.randint(2, 4),
        )
    else:
        _garden(pen, rng, wide, ground)
        things = rng.sample([_fence, _tree, _bush, _bush, _house, _plant], rng.randint(1, 3))
    for thing in things:
        thing(pen, rng, rng.uniform(0, wide), ground)
    for _ in range(rng.randint(0, 2)):
        rng.choice([_ball, _bowl, _crate, _yarn])(pen, rng, rng.uniform(0, wide), ground)


def foreground(pen: Pen, rng: Random, wide: float) -> None:
    """Paint something between the camera and the animal, that hides a part of it."""
    rng.choice([_near_leaf, _near_leaf, _near_box, _near_grass, _near_rail, _near_cloth])(pen, rng, wide)


def _room(pen: Pen, rng: Random, wide: float, ground: float) -> None:
    wall, floor = (
        shade(rng.choice(_WALLS), rng.uniform(0.6, 1.05)),
        shade(rng.choice(_FLOORS), rng.uniform(0.7, 1.15)),
    )
    pen.fill(box(0, 0, wide, ground), wall)
    paper = rng.choice(["plain", "bars", "dots", "tiles"])
    gap = rng.uniform(0.07, 0.16)
    ink = mix(wall, rng.choice(_CLOTHS), 0.25)
    if paper == "dots":
        spots = [
            (x * gap, y * gap + (x % 2) * gap / 2)
            for x in range(round(wide / gap) + 1)
            for y in range(round(ground / gap) + 1)
        ]
        for x, y in spots:
            pen.fill(oval(x, y, gap * 0.18, gap * 0.18), ink)
    elif paper != "plain":
        for x in range(round(wide / gap) + 1):
            pen.line([(x * gap, 0), (x * gap, ground)], ink, gap * (0.4 if paper == "bars" else 0.06))
        for y in range(round(ground / gap) + 1 if paper == "tiles" else 0):
            pen.line([(0, y * gap), (wide, y * gap)], ink, gap * 0.06)
    pen.fill(box(0, ground, wide, 1), floor)
    vanish = rng.uniform(0.2, 0.8) * wide
    for plank in range(-9, 10) if rng.random() < 0.6 else ():
        pen.line([(vanish + plank * 0.1, ground), (vanish + plank * 0.28, 1)], shade(floor, 0.86), 0.006)
    pen.fill(box(0, ground - 0.035, wide, ground), shade(wall, rng.choice([0.8, 1.15])))
    _light(pen, rng, wide)


def _light(pen: Pen, rng: Random, wide: float) -> None:
    """Paint a slanting beam of light, or the shadow of something outside the picture."""
    x, width, lean = rng.uniform(0, wide), rng.uniform(0.15, 0.5), rng.uniform(-0.5, 0.5)
    colour = (255, 244, 214, 46) if rng.random() < 0.6 else (10, 12, 30, 50)
    pen.fill([(x, 0), (x + width, 0), (x + width + lean, 1), (x + lean, 1)], colour)


def _garden(pen: Pen, rng: Random, wide: float, ground: float) -> None:
    sky = rng.choice([(150, 196, 228), (190, 214, 230), (236, 206, 176), (160, 170, 186)])
    for band in range(8):
        pen.fill(
            box(0, ground * band / 8, wide, ground * (band + 1) / 8 + 0.01),
            mix(sky, (250, 246, 236), band / 9),
        )
    for depth in (0.14, 0.06):
        knots = [(wide * step / 5, ground - depth - rng.uniform(0, 0.1)) for step in range(6)]
        pen.fill([*path(knots), (wide, ground), (0, ground)], mix(rng.choice(_LEAVES), sky, depth * 3.5))
    lawn = shade(
        rng.choice([(108, 146, 70), (138, 150, 84), (206, 188, 140), (168, 160, 150)]), rng.uniform(0.7, 1.1)
    )
    pen.fill(box(0, ground, wide, 1), lawn)
    for _ in range(70):
        x, y = rng.uniform(0, wide), rng.uniform(ground, 1)
        pen.line(
            [(x, y), (x + rng.uniform(-0.02, 0.02), y - rng.uniform(0.01, 0.04))],
            shade(lawn, rng.choice([0.8, 1.15])),
            0.005,
        )
    _light(pen, rng, wide)


def _window(pen: Pen, rng: Random, x: float, ground: float) -> None:
    w, h, top = rng.uniform(0.2, 0.4), rng.uniform(0.3, 0.45), rng.uniform(-0.05, 0.12)
    pen.fill(
        box(x - w, top, x + w, top + h),
        rng.choice([(190, 220, 240), (238, 214, 170), (70, 84, 116)]),
        (244, 242, 236),
        0.03,
    )
    pen.line([(x, top), (x, top + h)], (244, 242, 236), 0.02)
    pen.line([(x - w, top + h / 2), (x + w, top + h / 2)], (244, 242, 236), 0.02)


def _picture(pen: Pen, rng: Random, x: float, ground: float) -> None:
    w, h, top = rng.uniform(0.06, 0.15), rng.uniform(0.1, 0.2), rng.uniform(0.05, 0.25)
    pen.fill(box(x - w, top, x + w, top + h), rng.choice(_CLOTHS), rng.choice(_WOODS), 0.016)
    pen.fill(oval(x, top + h * 0.6, w * 0.6, h * 0.25), rng.choice(_LEAVES))


def _shelf(pen: Pen, rng: Random, x: float, ground: float) -> None:
    top, w = rng.uniform(0.2, 0.4), rng.uniform(0.2, 0.35)
    book = x - w
    while book < x + w * 0.7:
        width, height = rng.uniform(0.02, 0.045), rng.uniform(0.1, 0.17)
        pen.fill(box(book, top - height, book + width, top), rng.choice(_CLOTHS))
        book += width + 0.004
    pen.fill(box(x - w, top, x + w, top + 0.025), rng.choice(_WOODS))


def _lamp(pen: Pen, rng: Random, x: float, ground: float) -> None:
    top = rng.uniform(0.08, 0.25)
    pen.line([(x, top), (x, ground + 0.05)], (80, 72, 66), 0.014)
    pen.fill(oval(x, ground + 0.05, 0.07, 0.02), (80, 72, 66))
    pen.fill(
        [(x - 0.06, top - 0.02), (x + 0.06, top - 0.02), (x + 0.11, top + 0.13), (x - 0.11, top + 0.13)],
        (250, 226, 160),
    )


def _sofa(pen: Pen, rng: Random, x: float, ground: float) -> None:
    cloth, w, back = (
        shade(rng.choice(_CLOTHS), rng.uniform(0.7, 1.1)),
        rng.uniform(0.4, 0.7),
        ground - rng.uniform(0.2, 0.34),
    )
    pen.fill(ring(box(x - w, back, x + w, ground + 0.14)), shade(cloth, 0.85))
    pen.fill(box(x - w, ground - 0.06, x + w, ground + 0.14), cloth, shade(cloth, 0.7), 0.008)
    for arm in (-1, 1):
        pen.fill(oval(x + arm * w, ground, 0.09, 0.16), shade(cloth, 0.95), shade(cloth, 0.7), 0.008)


def _plant(pen: Pen, rng: Random, x: float, ground: float) -> None:
    leaf, foot = shade(rng.choice(_LEAVES), rng.uniform(0.7, 1.1)), ground + rng.uniform(0.02, 0.15)
    for _ in range(rng.randint(6, 11)):
        reach, rise = rng.uniform(-0.25, 0.25), rng.uniform(0.15, 0.42)
        blade = limb(
            [(x, foot - 0.1), (x + reach * 0.4, foot - rise), (x + reach, foot - rise * 0.9)],
            [0.02, 0.06, 0.005],
        )
        pen.fill(blade, shade(leaf, rng.uniform(0.75, 1.2)))
    pen.fill(
        [(x - 0.08, foot - 0.12), (x + 0.08, foot - 0.12), (x + 0.06, foot), (x - 0.06, foot)],
        rng.choice([(176, 92, 62), (220, 216, 206), (80, 90, 100)]),
    )


def _curtain(pen: Pen, rng: Random, x: float, ground: float) -> None:
    cloth, w = rng.choice(_CLOTHS), rng.uniform(0.12, 0.25)
    pen.fill(box(x - w, 0, x + w, ground - 0.02), cloth)
    for fold in range(5):
        pen.line(
            [(x - w + fold * w / 2, 0), (x - w + fold * w / 2 + 0.02, ground - 0.02)], shade(cloth, 0.8), 0.02
        )


def _cushion(pen: Pen, rng: Random, x: float, ground: float) -> None:
    cloth, y = rng.choice(_CLOTHS), ground + rng.uniform(0, 0.15)
    pen.fill(ring(box(x - 0.14, y - 0.1, x + 0.14, y + 0.1)), cloth, shade(cloth, 0.7), 0.008)


def _rug(pen: Pen, rng: Random, x: float, ground: float) -> None:
    cloth, y = rng.choice(_CLOTHS), (ground + 1.02) / 2
    for ringed in range(3):
        pen.fill(oval(x, y, 0.6 - ringed * 0.14, 0.14 - ringed * 0.03), shade(cloth, 1 - 0.14 * (ringed % 2)))


def _fence(pen: Pen, rng: Random, x: float, ground: float) -> None:
    wood, top = rng.choice(_WOODS), ground - rng.uniform(0.2, 0.4)
    for post in range(-12, 13):
        left = x + post * 0.1
        pen.fill(
            [
                (left, ground + 0.02),
                (left, top + 0.03),
                (left + 0.035, top),
                (left + 0.07, top + 0.03),
                (left + 0.07, ground + 0.02),
            ],
            wood,
            shade(wood, 0.75),
            0.005,
        )


def _tree(pen: Pen, rng: Random, x: float, ground: float) -> None:
    pen.fill(
        limb([(x, ground + 0.04), (x + 0.02, 0.4), (x - 0.02, 0.1)], [0.14, 0.09, 0.07]),
        rng.choice(_WOODS[:2]),
    )
    leaf = rng.choice(_LEAVES)
    for _ in range(6):
        pen.fill(
            oval(x + rng.uniform(-0.25, 0.25), rng.uniform(-0.05, 0.25), 0.16, 0.12),
            shade(leaf, rng.uniform(0.75, 1.15)),
        )


def _bush(pen: Pen, rng: Random, x: float, ground: float) -> None:
    leaf = rng.choice(_LEAVES)
    for _ in range(7):
        pen.fill(
            oval(x + rng.uniform(-0.25, 0.25), ground - rng.uniform(0, 0.16), 0.11, 0.1),
            shade(leaf, rng.uniform(0.7, 1.1)),
        )
    for _ in range(rng.choice([0, 8])):
        pen.fill(
            oval(x + rng.uniform(-0.3, 0.3), ground - rng.uniform(0, 0.22), 0.016, 0.016), (236, 120, 140)
        )


def _house(pen: Pen, rng: Random, x: float, ground: float) -> None:
    wall, top = rng.choice(_WALLS), ground - rng.uniform(0.2, 0.35)
    pen.fill(box(x - 0.25, top, x + 0.25, ground), wall)
    pen.fill([(x - 0.32, top), (x, top - 0.2), (x + 0.32, top)], rng.choice([(150, 70, 58), (90, 84, 92)]))
    pen.fill(box(x - 0.15, top + 0.06, x - 0.03, top + 0.17), (90, 110, 136))
    pen.fill(box(x + 0.06, top + 0.07, x + 0.16, ground), rng.choice(_WOODS))


def _ball(pen: Pen, rng: Random, x: float, ground: float) -> None:
    cloth, y, r = rng.choice(_CLOTHS), rng.uniform(ground + 0.05, 0.98), rng.uniform(0.03, 0.07)
    pen.fill(oval(x, y, r, r), cloth, shade(cloth, 0.6), 0.006)
    pen.fill(oval(x - r * 0.3, y - r * 0.3, r * 0.3, r * 0.25), (255, 255, 255, 110))


def _bowl(pen: Pen, rng: Random, x: float, ground: float) -> None:
    cloth, y = rng.choice(_CLOTHS), rng.uniform(ground + 0.05, 0.96)
    pen.fill([(x - 0.08, y - 0.05), (x + 0.08, y - 0.05), (x + 0.1, y), (x - 0.1, y)], cloth)
    pen.fill(oval(x, y - 0.05, 0.08, 0.02), shade(cloth, 0.6))


def _crate(pen: Pen, rng: Random, x: float, ground: float) -> None:
    y, w, h = rng.uniform(ground + 0.05, 0.98), rng.uniform(0.08, 0.18), rng.uniform(0.1, 0.2)
    card = rng.choice([(196, 152, 104), (170, 128, 86), *_CLOTHS])
    pen.fill(box(x - w, y - h, x + w, y), card, shade(card, 0.7), 0.006)
    pen.fill(box(x - w, y - h, x + w, y - h * 0.75), shade(card, 0.88))


def _yarn(pen: Pen, rng: Random, x: float, ground: float) -> None:
    cloth, y, r = rng.choice(_CLOTHS), rng.uniform(ground + 0.05, 0.97), rng.uniform(0.03, 0.06)
    pen.fill(oval(x, y, r, r), cloth)
    for turn in range(4):
        pen.line(oval(x, y, r, r * 0.4, turn * 0.8)[:14], shade(cloth, 0.75), 0.005)
    pen.line(path([(x, y + r), (x + 0.1, y + r), (x + 0.2, y + r - 0.02)]), cloth, 0.007)


def _near_leaf(pen: Pen, rng: Random, wide: float) -> None:
    leaf, edge = shade(rng.choice(_LEAVES), rng.uniform(0.5, 1)), rng.choice([0, wide])
    inward = 1 if edge == 0 else -1
    for _ in range(rng.randint(3, 6)):
        y, reach = rng.uniform(0.3, 1.1), rng.uniform(0.2, 0.55) * inward
        pen.fill(
            limb([(edge, y), (edge + reach * 0.5, y - 0.16), (edge + reach, y - 0.1)], [0.02, 0.12, 0.01]),
            shade(leaf, rng.uniform(0.8, 1.2)),
        )


def _near_box(pen: Pen, rng: Random, wide: float) -> None:
    x, w, top = rng.uniform(0.15, 0.85) * wide, rng.uniform(0.12, 0.3), rng.uniform(0.68, 0.85)
    card = rng.choice([(196, 152, 104), *_CLOTHS])
    pen.fill(box(x - w, top, x + w, 1.1), card, shade(card, 0.65), 0.01)


def _near_grass(pen: Pen, rng: Random, wide: float) -> None:
    leaf = rng.choice(_LEAVES)
    for _ in range(40):
        x, rise = rng.uniform(0, wide), rng.uniform(0.08, 0.28)
        pen.fill(
            [(x - 0.012, 1), (x + rng.uniform(-0.06, 0.06), 1 - rise), (x + 0.012, 1)],
            shade(leaf, rng.uniform(0.7, 1.2)),
        )


def _near_rail(pen: Pen, rng: Random, wide: float) -> None:
    wood, width = rng.choice(_WOODS), rng.uniform(0.03, 0.07)
    if rng.random() < 0.5:
        y = rng.uniform(0.65, 0.85)
        pen.fill(box(0, y, wide, y + width * 1.5), wood, shade(wood, 0.7), 0.006)
    x = rng.uniform(0.1, 0.9) * wide
    pen.fill(box(x, 0, x + width, 1), wood, shade(wood, 0.7), 0.006)


def _near_cloth(pen: Pen, rng: Random, wide: float) -> None:
    cloth, y = rng.choice(_CLOTHS), rng.uniform(0.68, 0.85)
    knots = [(wide * step / 4, y + rng.uniform(-0.06, 0.06)) for step in range(5)]
    pen.fill([*path(knots), (wide, 1.05), (0, 1.05)], cloth)
    for step in range(1, 6):
        pen.line([(wide * step / 6, y + 0.1), (wide * (step / 6 + 0.02), 1)], shade(cloth, 0.85), 0.012)
