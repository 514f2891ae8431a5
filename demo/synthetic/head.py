"""Heads of the animals, from the front and from the side. The unit is the radius of the head."""

from demo.synthetic.coat import fur
from demo.synthetic.pen import Colour, Pen, Point, both_sides, limb, mix, oval, path, ring, shade
from demo.synthetic.traits import Traits

_DARK = (28, 24, 26)
_TONGUE = (226, 106, 118)
_INNER_EAR = (222, 160, 152)
_LINE = 0.045


def front(pen: Pen, animal: Traits) -> None:
    """Paint a head that faces the camera, with the middle of the skull at (0, 0)."""
    coat, cheek, jaw = animal.coat, animal.cheek, animal.jaw
    if animal.ear != "floppy":
        _ears(pen, animal)
    right = [(0, -0.86), (0.5, -0.77), (0.86, -0.36), (cheek, 0.12), (cheek * 0.78, jaw * 0.68)]
    outline = ring(both_sides([*right, (0.34, jaw * 0.96), (0, jaw)]))
    pen.fill(outline, coat.base, coat.edge, _LINE)
    with pen.inside(outline) as marks:
        fur(marks, coat, (-1.1, -0.9, 1.1, jaw))
        if coat.pattern == "bib":
            marks.fill(
                ring(both_sides([(0, -0.7), (0.14, -0.1), (0.55, jaw * 0.6), (0, jaw * 1.1)])), coat.second
            )
    if animal.ear == "floppy":
        _ears(pen, animal)
    _muzzle(pen, animal)
    for side in (False, True):
        _eye(pen.within(mirror=side).within(animal.eye_gap, -0.12), animal)
    _whiskers(pen, animal, (0.24, jaw * 0.5))
    _whiskers(pen.within(mirror=True), animal, (0.24, jaw * 0.5))


def side(pen: Pen, animal: Traits) -> None:
    """Paint a head that faces right, with the middle of the skull at (0, 0)."""
    coat, tip = animal.coat, 0.72 + animal.snout
    depth = 0.16 + 0.22 * animal.nose / 0.2
    far = pen.within(0.34, 0.04, scale=0.92)
    _ear_side(far, animal, shade(coat.ear, 0.8))
    brow: list[Point] = [(-0.85, 0.05), (-0.66, -0.56), (-0.05, -0.84), (0.46, -0.62), (0.68, -0.2)]
    nose: list[Point] = [(tip - 0.08, -0.04), (tip, 0.1), (tip - 0.04, 0.1 + depth)]
    chin: list[Point] = [(0.62, 0.56 + depth / 4), (0.1, 0.76), (-0.55, 0.62)]
    outline = ring([*brow, *nose, *chin])
    pen.fill(outline, coat.base, coat.edge, _LINE)
    with pen.inside(outline) as marks:
        fur(marks, coat, (-0.9, -0.9, tip, 0.8))
        marks.fill(oval(tip - 0.1, 0.3, 0.3 + animal.snout * 0.4, 0.36), coat.muzzle)
    pen.line(
        path([(tip - 0.08, 0.16 + depth * 0.6), (tip - 0.3, 0.26 + depth * 0.6), (0.42, 0.3 + depth / 2)]),
        _DARK,
        _LINE,
    )
    if animal.tongue:
        mouth = tip - 0.28
        pen.fill(limb([(mouth, 0.4), (mouth + 0.1, 0.65), (mouth + 0.06, 0.95)], [0.1, 0.24, 0.14]), _TONGUE)
    pen.fill(oval(tip - 0.04, 0.04, animal.nose * 0.75, animal.nose * 0.7), animal.nose_colour)
    _eye(pen.within(0.3, -0.16, scale=0.95), animal)
    _ear_side(pen.within(-0.12, 0), animal, coat.ear)
    _whiskers(pen, animal, (tip - 0.22, 0.26))


def _muzzle(pen: Pen, animal: Traits) -> None:
    """Paint mouth and nose from the front; a long jaw gets a snout."""
    jaw, nose, coat = animal.jaw, animal.nose, animal.coat
    y = jaw * 0.36 if animal.snout > 0.4 else 0.24
    lobe = nose * 1.25 + 0.06
    if animal.snout > 0.4:
        pen.fill(
            oval(0, jaw * 0.58, 0.3 + nose * 0.7, jaw * 0.42),
            coat.muzzle,
            mix(coat.muzzle, coat.edge, 0.35),
            _LINE,
        )
    if animal.tongue:
        top = y + nose + lobe * 0.9
        pen.fill(limb([(0, top), (0.02, top + 0.2), (0.03, top + 0.42)], [0.22, 0.28, 0.2]), _TONGUE)
    for turn in (-1, 1):
        if animal.snout <= 0.4:
            pen.fill(oval(turn * lobe * 0.85, y + nose + 0.1, lobe, lobe * 0.8), coat.muzzle)
        smile = [
            (0, y + nose),
            (turn * lobe * 0.5, y + nose + lobe * 0.9),
            (turn * lobe * 1.5, y + nose + lobe * 0.7),
        ]
        pen.line(path(smile), _DARK, _LINE)
    tip = ring(
        both_sides(
            [
                (0, y - nose * 0.55),
                (nose * 0.9, y - nose * 0.4),
                (nose * 0.5, y + nose * 0.5),
                (0, y + nose * 0.75),
            ]
        )
    )
    pen.fill(tip, animal.nose_colour)
    pen.fill(oval(-nose * 0.3, y - nose * 0.2, nose * 0.25, nose * 0.12), (255, 255, 255, 120))


def _eye(pen: Pen, animal: Traits) -> None:
    r = animal.eye
    if animal.eyes == "closed":
        pen.line(path([(-r, 0), (0, r * 0.5), (r, 0)]), _DARK, 0.06)
        return
    tilt = -0.25 if animal.eyes == "slit" else 0
    pen.fill(oval(0, 0, r * 1.12, r * 1.0, tilt), _DARK)
    pen.fill(oval(0, 0, r * 0.95, r * 0.84, tilt), animal.iris)
    width = {"slit": 0.26, "wide": 0.58, "dark": 0.8}[animal.eyes]
    pen.fill(oval(0, 0, r * width, r * (0.82 if animal.eyes == "slit" else width)), _DARK)
    pen.fill(oval(r * 0.3, -r * 0.32, r * 0.22, r * 0.22), (255, 255, 255))


def _whiskers(pen: Pen, animal: Traits, root: Point) -> None:
    if not animal.whiskers:
        return
    x, y = root
    pale = sum(animal.coat.base) < 3 * 170
    colour = (*((250, 250, 246) if pale else (70, 62, 60)), animal.whiskers)
    for drop in (-0.22, -0.02, 0.2):
        pen.line(
            path([(x, y + drop / 3), (x + 0.5, y + drop * 0.8), (x + 0.95, y + drop * 1.6 + 0.04)]),
            colour,
            0.025,
        )


def _ears(pen: Pen, animal: Traits) -> None:
    for mirror in (False, True):
        _ear_front(pen.within(mirror=mirror), animal)


def _ear_front(pen: Pen, animal: Traits) -> None:
    size, coat = animal.ear_size, animal.coat
    if animal.ear == "floppy":
        hang: list[Point] = [
            (0.42, -0.8),
            (0.86, -0.66),
            (1.2, -0.1),
            (1.2, 0.62 * size),
            (0.98, 0.82 * size),
            (0.78, 0.4),
        ]
        pen.fill(ring([*hang, (0.74, -0.3)]), coat.ear, coat.edge, _LINE)
        return
    tip_x, tip_y = {
        "pointed": (0.84, -0.72 - 0.66 * size),
        "pricked": (0.68, -0.74 - 0.72 * size),
        "half": (0.8, -0.62 - 0.5 * size),
    }[animal.ear]
    bow = 0.12 if animal.ear == "pricked" else 0.03
    outline = [
        (0.2, -0.72),
        ((0.2 + tip_x) / 2 - bow, (-0.8 + tip_y) / 2),
        (tip_x, tip_y),
        (tip_x + bow + 0.06, (tip_y - 0.3) / 2),
        (0.93, -0.2),
    ]
    pen.fill(outline, coat.ear, coat.edge, _LINE)
    middle = (0.6, -0.55)
    inner = [(mx + (x - mx) * 0.62, my + (y - my) * 0.66) for x, y in outline for mx, my in [middle]]
    pen.fill(inner, mix(coat.ear, _INNER_EAR, 0.6))
    if animal.ear == "half":
        fold = [
            ((0.2 + tip_x) / 2, (-0.8 + tip_y) / 2),
            (tip_x, tip_y),
            (tip_x + 0.16, tip_y / 2 - 0.2),
            (tip_x + 0.22, tip_y / 2),
        ]
        pen.fill(ring(fold), coat.ear, coat.edge, _LINE)


def _ear_side(pen: Pen, animal: Traits, colour: Colour) -> None:
    size, edge = animal.ear_size, animal.coat.edge
    if animal.ear == "floppy":
        hang = ring(
            [
                (-0.1, -0.72),
                (0.14, -0.4),
                (0.1, 0.3 * size),
                (-0.16, 0.72 * size),
                (-0.44, 0.5 * size),
                (-0.46, -0.3),
            ]
        )
        pen.fill(hang, colour, edge, _LINE)
        return
    height = {"pointed": 0.6, "pricked": 0.72, "half": 0.42}[animal.ear] * size
    outline = [
        (-0.42, -0.5),
        (-0.3, -0.74 - height * 0.6),
        (-0.14, -0.78 - height),
        (0.08, -0.72 - height * 0.5),
        (0.24, -0.6),
    ]
    pen.fill(outline, colour, edge, _LINE)
    if animal.ear == "half":
        pen.fill(
            ring(
                [
                    (-0.22, -0.7 - height),
                    (0.1, -0.66 - height * 0.8),
                    (0.3, -0.5 - height * 0.4),
                    (0.0, -0.7 - height * 0.3),
                ]
            ),
            colour,
            edge,
            _LINE,
        )
