"""Which fault comes when: a seed decides, and nothing else. Plain functions without clock or I/O.

The parts of a stack are hurt in parallel streams, so that outages overlap. Each stream draws its own faults.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from tests.faults.crashing import points_of

STREAMS = {
    "devices": ("device-1", "device-2", "device-3", "link device-1", "link device-2", "link device-3"),
    "edge": ("edge", "edge", "edge", "link edge"),
    "serving": ("model-server", "link serving"),
    "edge-broker": ("edge-broker",),
    "cloud": ("cloud-broker", "link bridge", "link bridge"),
    "collector": ("collector", "collector", "link collector"),
}
"""The targets of each stream; one that stands there twice is hurt twice as often."""

_COMMAND_FAULTS = {"kill": 4, "crash": 4, "freeze": 3, "restart": 1}
_BROKER_FAULTS = {"kill": 4, "freeze": 2, "restart": 1}
_LINK_FAULTS = {"cut": 4, "halve": 4, "delay": 2, "silence": 2, "close": 2}
_MEAN_PAUSE_S = {"edge-broker": 8.0}
_MEAN_HOLD_S = {"kill": 0.3, "freeze": 1.0, "delay": 2.0, "silence": 3.0, "close": 1.0}
_LONGEST_HOLD_S = 15.0
_PASSINGS = 20


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Args:
        target: A component, or `link` and the name of a link.
        kind: `kill` (SIGKILL), `crash` (SIGKILL at a step of the protocol), `freeze` (SIGSTOP, SIGCONT),
            `restart` (SIGTERM); of links `cut`, `halve`, `delay`, `silence`, `close`.
        pause_s: Before it.
        hold_s: From the harm to the healing.
        point: For `crash`: the step.
        nth: For `crash`: at which passing of it.
    """

    target: str
    kind: str
    pause_s: float
    hold_s: float = 0.0
    point: str = ""
    nth: int = 0

    @property
    def link(self) -> str | None:
        """The link's name, None for a component."""
        kind, _, name = self.target.partition(" ")
        return name if kind == "link" else None


def faults(seed: int, stream: str, mean_pause_s: float = 3.0) -> Iterator[Fault]:
    """Yield the faults of a stream without end: the same seed, the same faults."""
    draw = random.Random(f"{seed} {stream}")
    while True:
        yield _fault(draw, draw.choice(STREAMS[stream]), _MEAN_PAUSE_S.get(stream, mean_pause_s))


def mix(seed: int, count: int) -> list[Fault]:
    """Return so many faults, the streams in turn."""
    streams = [faults(seed, stream) for stream in STREAMS]
    turns = -(-count // len(streams))
    return [fault for turn in zip(*(islice(stream, turns) for stream in streams), strict=True) for fault in turn][:count]


def _fault(draw: random.Random, target: str, mean_pause_s: float) -> Fault:
    kinds = _LINK_FAULTS if target.startswith("link ") else _COMMAND_FAULTS
    if target.endswith("-broker"):
        kinds = _BROKER_FAULTS
    kind = draw.choices(list(kinds), list(kinds.values()))[0]
    mean_hold_s = _MEAN_HOLD_S.get(kind)
    crash = kind == "crash"
    return Fault(
        target,
        kind,
        pause_s=draw.expovariate(1 / mean_pause_s),
        hold_s=min(draw.expovariate(1 / mean_hold_s), _LONGEST_HOLD_S) if mean_hold_s else 0.0,
        point=draw.choice(points_of(target.rstrip("-0123456789"))) if crash else "",
        nth=draw.randint(1, _PASSINGS) if crash else 0,
    )
