"""Random traits of an animal, as plain numbers for the painting."""

from random import Random
from typing import NamedTuple

from demo.synthetic.pen import Colour, mix, shade

CLASSES = ("cat", "dog")

_COATS: tuple[tuple[Colour, Colour], ...] = (
    ((222, 142, 66), (250, 224, 184)),
    ((58, 54, 56), (232, 228, 222)),
    ((136, 138, 144), (222, 222, 224)),
    ((240, 232, 220), (206, 164, 118)),
    ((232, 206, 160), (250, 240, 220)),
    ((120, 80, 52), (226, 196, 156)),
    ((166, 118, 76), (240, 220, 190)),
    ((206, 168, 112), (92, 68, 52)),
    ((98, 104, 118), (196, 200, 208)),
    ((182, 96, 52), (246, 236, 224)),
)
_PATTERNS = ("plain", "plain", "stripes", "patches", "spots", "bib", "mask")
_COLLARS: tuple[Colour, ...] = ((196, 52, 52), (48, 96, 184), (60, 150, 90), (230, 180, 50), (150, 80, 170))


class Coat(NamedTuple):
    """Colours and pattern of the fur; the same for both classes, so that they do not reveal the class."""

    base: Colour
    second: Colour
    edge: Colour
    pattern: str
    seed: int
    collar: Colour | None

    @property
    def muzzle(self) -> Colour:
        """Colour around the mouth."""
        if self.pattern == "mask":
            return shade(self.base, 0.6)
        return mix(self.base, self.second, 0.85 if self.pattern == "bib" else 0.45)

    @property
    def ear(self) -> Colour:
        """Colour of the ears."""
        return shade(self.base, 0.45) if self.pattern == "mask" else shade(self.base, 0.9)


class Traits(NamedTuple):
    """The shape of one animal; lengths in head radii (the skull is about 2 wide)."""

    coat: Coat
    ear: str
    """pointed, pricked, half (pricked with the tip folded) or floppy."""
    ear_size: float
    cheek: float
    jaw: float
    """Distance of the chin below the middle of the face, from the front."""
    snout: float
    """Length of the nose in front of the face, from the side."""
    eye: float
    eye_gap: float
    eyes: str
    """slit, wide (dilated pupil), dark (almost no iris) or closed."""
    iris: Colour
    nose: float
    nose_colour: Colour
    whiskers: int
    """Opacity of the whiskers, 0..255."""
    tongue: bool
    tail: tuple[float, float]
    """Length and thickness."""
    tail_lift: float
    """From 0 (hanging) to 1 (upright)."""
    bulk: float
    leg: float


def traits(label: str, rng: Random) -> Traits:
    """Draw random traits for a class; the painting uses only these and not the class.

    Args:
        label: "cat" or "dog".
        rng: The only source of randomness.

    Returns:
        Traits; most ranges of the two classes overlap, so that no single trait reveals the class.

    Raises:
        ValueError: The class is unknown.
    """
    kind = {"cat": _cat, "dog": _dog}.get(label)
    if kind is None:
        raise ValueError(f"drawing: expected a class of {', '.join(CLASSES)}, got {label!r}")
    return kind(rng, _coat(rng))


def _coat(rng: Random) -> Coat:
    base, second = rng.choice(_COATS)
    base = mix(shade(base, rng.uniform(0.8, 1.15)), rng.choice(_COATS)[0], rng.uniform(0, 0.25))
    edge = shade(base, rng.uniform(0.3, 0.75))
    collar = rng.choice(_COLLARS) if rng.random() < 0.35 else None
    return Coat(base, second, edge, rng.choice(_PATTERNS), rng.getrandbits(32), collar)


def _pick(rng: Random, **weights: float) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]


def _cat(rng: Random, coat: Coat) -> Traits:
    return Traits(
        coat=coat,
        ear=_pick(rng, pointed=0.98, half=0.02),
        ear_size=rng.uniform(0.8, 1.25),
        cheek=rng.uniform(0.92, 1.12),
        jaw=rng.uniform(0.76, 0.92),
        snout=rng.uniform(0.12, 0.34),
        eye=rng.uniform(0.18, 0.27),
        eye_gap=rng.uniform(0.38, 0.47),
        eyes=_pick(rng, slit=0.5, wide=0.25, dark=0.1, closed=0.08),
        iris=rng.choice([(150, 190, 80), (224, 184, 60), (110, 170, 210), (200, 130, 50), (120, 90, 50)]),
        nose=rng.uniform(0.09, 0.14),
        nose_colour=rng.choice([(226, 140, 140), (200, 110, 110), (70, 50, 50), (40, 36, 38)]),
        whiskers=rng.choice([0, 90, 160, 220]),
        tongue=rng.random() < 0.07,
        tail=(rng.uniform(1.5, 2.6), rng.uniform(0.22, 0.5)),
        tail_lift=rng.random(),
        bulk=rng.uniform(0.8, 1.2),
        leg=rng.uniform(0.75, 1.0),
    )


def _dog(rng: Random, coat: Coat) -> Traits:
    return Traits(
        coat=coat,
        ear=_pick(rng, floppy=0.88, half=0.06, pricked=0.06),
        ear_size=rng.uniform(0.75, 1.3),
        cheek=rng.uniform(0.72, 0.95),
        jaw=rng.uniform(0.98, 1.3),
        snout=rng.uniform(0.5, 1.05),
        eye=rng.uniform(0.13, 0.2),
        eye_gap=rng.uniform(0.32, 0.42),
        eyes=_pick(rng, dark=0.55, wide=0.3, closed=0.08),
        iris=rng.choice([(120, 76, 40), (90, 56, 30), (110, 170, 210), (190, 130, 50), (120, 90, 50)]),
        nose=rng.uniform(0.16, 0.25),
        nose_colour=rng.choice([(40, 36, 38), (30, 28, 30), (92, 60, 50), (150, 96, 90)]),
        whiskers=rng.choice([0, 0, 0, 60]),
        tongue=rng.random() < 0.45,
        tail=(rng.uniform(0.8, 1.9), rng.uniform(0.25, 0.6)),
        tail_lift=rng.random(),
        bulk=rng.uniform(0.9, 1.3),
        leg=rng.uniform(0.85, 1.35),
    )
