"""Objects in rooms and gardens.

(0, 0) is the far end of the floor, at the middle of the object; the unit is the height of the picture.
"""

from random import Random

from demo.synthetic.palette import CARDS, CLOTHS, LEAVES, PANES, POTS, ROOFS, WALLS, WOODS
from demo.synthetic.pen import Pen, box, limb, oval, path, ring, shade

_FRAME = (244, 242, 236)
_METAL = (80, 72, 66)


def window(pen: Pen, rng: Random) -> None:
    """Paint a window with four panes."""
    half, height, top = rng.uniform(0.2, 0.4), rng.uniform(0.3, 0.45), -rng.uniform(0.5, 0.75)
    pen.fill(box(-half, top, half, top + height), rng.choice(PANES), _FRAME, 0.03)
    pen.line([(0, top), (0, top + height)], _FRAME, 0.02)
    pen.line([(-half, top + height / 2), (half, top + height / 2)], _FRAME, 0.02)


def picture(pen: Pen, rng: Random) -> None:
    """Paint a picture in a frame."""
    half, height, top = rng.uniform(0.06, 0.15), rng.uniform(0.1, 0.2), -rng.uniform(0.4, 0.6)
    pen.fill(box(-half, top, half, top + height), rng.choice(CLOTHS), rng.choice(WOODS), 0.016)
    pen.fill(oval(0, top + height * 0.6, half * 0.6, height * 0.25), rng.choice(LEAVES))


def shelf(pen: Pen, rng: Random) -> None:
    """Paint a board with books."""
    top, half = -rng.uniform(0.25, 0.45), rng.uniform(0.2, 0.35)
    book = -half
    while book < half * 0.7:
        width, height = rng.uniform(0.02, 0.045), rng.uniform(0.1, 0.17)
        pen.fill(box(book, top - height, book + width, top), rng.choice(CLOTHS))
        book += width + 0.004
    pen.fill(box(-half, top, half, top + 0.025), rng.choice(WOODS))


def lamp(pen: Pen, rng: Random) -> None:
    """Paint a floor lamp."""
    top = -rng.uniform(0.35, 0.55)
    pen.line([(0, top), (0, 0.05)], _METAL, 0.014)
    pen.fill(oval(0, 0.05, 0.07, 0.02), _METAL)
    pen.fill(
        [(-0.06, top - 0.02), (0.06, top - 0.02), (0.11, top + 0.13), (-0.11, top + 0.13)], (250, 226, 160)
    )


def sofa(pen: Pen, rng: Random) -> None:
    """Paint a sofa."""
    cloth, half = shade(rng.choice(CLOTHS), rng.uniform(0.7, 1.1)), rng.uniform(0.4, 0.7)
    seam = shade(cloth, 0.7)
    pen.fill(ring(box(-half, -rng.uniform(0.2, 0.34), half, 0.14)), shade(cloth, 0.85))
    pen.fill(box(-half, -0.06, half, 0.14), cloth, seam, 0.008)
    for arm in (-half, half):
        pen.fill(oval(arm, 0, 0.09, 0.16), shade(cloth, 0.95), seam, 0.008)


def plant(pen: Pen, rng: Random) -> None:
    """Paint a plant in a pot."""
    leaf, foot = shade(rng.choice(LEAVES), rng.uniform(0.7, 1.1)), rng.uniform(0.02, 0.15)
    for _ in range(rng.randint(6, 11)):
        reach, rise = rng.uniform(-0.25, 0.25), rng.uniform(0.15, 0.42)
        spine = [(0.0, foot - 0.1), (reach * 0.4, foot - rise), (reach, foot - rise * 0.9)]
        pen.fill(limb(spine, [0.02, 0.06, 0.005]), shade(leaf, rng.uniform(0.75, 1.2)))
    pot = [(-0.08, foot - 0.12), (0.08, foot - 0.12), (0.06, foot), (-0.06, foot)]
    pen.fill(pot, rng.choice(POTS))


def curtain(pen: Pen, rng: Random) -> None:
    """Paint a curtain from the ceiling to the floor."""
    cloth, half = rng.choice(CLOTHS), rng.uniform(0.12, 0.25)
    pen.fill(box(-half, -1, half, -0.02), cloth)
    for fold in range(5):
        x = -half + fold * half / 2
        pen.line([(x, -1), (x + 0.02, -0.02)], shade(cloth, 0.8), 0.02)


def cushion(pen: Pen, rng: Random) -> None:
    """Paint a cushion on the floor."""
    cloth, y = rng.choice(CLOTHS), rng.uniform(0, 0.15)
    pen.fill(ring(box(-0.14, y - 0.1, 0.14, y + 0.1)), cloth, shade(cloth, 0.7), 0.008)


def rug(pen: Pen, rng: Random) -> None:
    """Paint an oval rug."""
    cloth, y = rng.choice(CLOTHS), rng.uniform(0.12, 0.28)
    for band in range(3):
        pen.fill(oval(0, y, 0.6 - band * 0.14, 0.14 - band * 0.03), shade(cloth, 1 - 0.14 * (band % 2)))


def fence(pen: Pen, rng: Random) -> None:
    """Paint a picket fence across the garden."""
    wood, top = rng.choice(WOODS), -rng.uniform(0.2, 0.4)
    for post in range(-12, 13):
        x = post * 0.1
        picket = [(x, 0.02), (x, top + 0.03), (x + 0.035, top), (x + 0.07, top + 0.03), (x + 0.07, 0.02)]
        pen.fill(picket, wood, shade(wood, 0.75), 0.005)


def tree(pen: Pen, rng: Random) -> None:
    """Paint a tree whose crown leaves the picture."""
    pen.fill(limb([(0, 0.04), (0.02, -0.25), (-0.02, -0.6)], [0.14, 0.09, 0.07]), rng.choice(WOODS[:2]))
    leaf = rng.choice(LEAVES)
    for _ in range(6):
        crown = oval(rng.uniform(-0.25, 0.25), -rng.uniform(0.4, 0.7), 0.16, 0.12)
        pen.fill(crown, shade(leaf, rng.uniform(0.75, 1.15)))


def bush(pen: Pen, rng: Random) -> None:
    """Paint a bush, sometimes in blossom."""
    leaf = rng.choice(LEAVES)
    for _ in range(7):
        twig = oval(rng.uniform(-0.25, 0.25), -rng.uniform(0, 0.16), 0.11, 0.1)
        pen.fill(twig, shade(leaf, rng.uniform(0.7, 1.1)))
    for _ in range(rng.choice([0, 8])):
        pen.fill(oval(rng.uniform(-0.3, 0.3), -rng.uniform(0, 0.22), 0.016, 0.016), (236, 120, 140))


def house(pen: Pen, rng: Random) -> None:
    """Paint a small house at the end of the garden."""
    top = -rng.uniform(0.2, 0.35)
    pen.fill(box(-0.25, top, 0.25, 0), rng.choice(WALLS))
    pen.fill([(-0.32, top), (0, top - 0.2), (0.32, top)], rng.choice(ROOFS))
    pen.fill(box(-0.15, top + 0.06, -0.03, top + 0.17), (90, 110, 136))
    pen.fill(box(0.06, top + 0.07, 0.16, 0), rng.choice(WOODS))


def ball(pen: Pen, rng: Random) -> None:
    """Paint a ball on the floor."""
    cloth, y, r = rng.choice(CLOTHS), rng.uniform(0.05, 0.4), rng.uniform(0.03, 0.07)
    pen.fill(oval(0, y, r, r), cloth, shade(cloth, 0.6), 0.006)
    pen.fill(oval(-r * 0.3, y - r * 0.3, r * 0.3, r * 0.25), (255, 255, 255, 110))


def bowl(pen: Pen, rng: Random) -> None:
    """Paint a bowl on the floor."""
    cloth, y = rng.choice(CLOTHS), rng.uniform(0.05, 0.4)
    pen.fill([(-0.08, y - 0.05), (0.08, y - 0.05), (0.1, y), (-0.1, y)], cloth)
    pen.fill(oval(0, y - 0.05, 0.08, 0.02), shade(cloth, 0.6))


def crate(pen: Pen, rng: Random) -> None:
    """Paint a box on the floor."""
    card, y = rng.choice(CARDS), rng.uniform(0.05, 0.4)
    half, height = rng.uniform(0.08, 0.18), rng.uniform(0.1, 0.2)
    pen.fill(box(-half, y - height, half, y), card, shade(card, 0.7), 0.006)
    pen.fill(box(-half, y - height, half, y - height * 0.75), shade(card, 0.88))


def yarn(pen: Pen, rng: Random) -> None:
    """Paint a ball of yarn with a loose end."""
    cloth, y, r = rng.choice(CLOTHS), rng.uniform(0.05, 0.4), rng.uniform(0.03, 0.06)
    pen.fill(oval(0, y, r, r), cloth)
    for turn in range(4):
        pen.line(oval(0, y, r, r * 0.4, turn * 0.8)[:14], shade(cloth, 0.75), 0.005)
    pen.line(path([(0, y + r), (0.1, y + r), (0.2, y + r - 0.02)]), cloth, 0.007)


INDOORS = (window, picture, shelf, lamp, sofa, sofa, plant, curtain, cushion, rug)
OUTDOORS = (fence, tree, bush, bush, house, plant)
ON_THE_FLOOR = (ball, bowl, crate, yarn)
