"""Draw a reproducible sequence of faults from a seed. No I/O.

Faults are injected in parallel streams, so that outages overlap; each stream draws its own faults.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from tests.faults.crashing import points_of

STREAMS = {
    "devices": ("device-1", "device-2", "device-3", "link device-1", "link device-2", "link device-3"),
    "edge": ("edge", "edge", "edge", "link edge"),
    "serving": ("model-server", "link serving"),
    "edge-broker": ("edge-broker",),
    "cloud": ("cloud-broker", "link bridge", "link bridge"),
    "collector": ("collector", "collector", "link collector"),
}
"""The targets of each stream; a target listed twice is drawn twice as often."""

_SERVICES = ("device-1", "device-2", "device-3", "edge", "collector")
_BROKER_LINKS = (
    "link device-1",
    "link device-2",
    "link device-3",
    "link edge",
    "link collector",
    "link bridge",
)

HARSH_STREAMS = {
    "network": _BROKER_LINKS,
    "disk": _SERVICES,
    "clock": _SERVICES,
    "hostile": ("hostile",),
}
"""The targets of the streams with faults of the surroundings: network, disks, clocks, and hostile devices."""

ALL_STREAMS = STREAMS | HARSH_STREAMS

_HARSH_FAULTS = {
    "network": ("corrupt", "half-open", "storm", "slow", "latency"),
    "disk": ("write-error", "sync-error", "disk-full", "read-only"),
    "clock": ("clock",),
    "hostile": ("double-header", "hidden-header", "many-scans", "malformed", "labels", "odd-names", "flood"),
}
_JUMPS_S = (3600, -3600, 86_400 * 40, -86_400 * 40)
_COMMAND_FAULTS = {"kill": 4, "crash": 4, "freeze": 3, "restart": 1}
_BROKER_FAULTS = {"kill": 4, "freeze": 2, "restart": 1}
_LINK_FAULTS = {"cut": 4, "halve": 4, "delay": 2, "silence": 2, "close": 2}
_MEAN_HOLD_S = {"kill": 0.3, "freeze": 1.0, "delay": 2.0, "silence": 3.0, "close": 1.0}
_MEAN_HOLD_S |= {"half-open": 6.0, "storm": 2.0, "slow": 5.0, "latency": 4.0, "clock": 6.0}
_MEAN_HOLD_S |= dict.fromkeys(_HARSH_FAULTS["disk"], 2.0) | dict.fromkeys(_HARSH_FAULTS["hostile"], 3.0)
_LONGEST_HOLD_S = 15.0
_PASSINGS = 20


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Args:
        target: A component, or `link` and the name of a link.
        kind: `kill` (SIGKILL), `crash` (SIGKILL at a step of the protocol), `freeze` (SIGSTOP, SIGCONT) or
            `restart` (SIGTERM); of links `cut`, `halve`, `delay`, `silence` or `close`; or one of the
            harsh streams' kinds.
        pause_s: Seconds before it.
        hold_s: Seconds until it is removed.
        point: For `crash`: the step.
        nth: For `crash`: at which call of the step.
        jump_s: For `clock`: how far the clock jumps, in seconds.
    """

    target: str
    kind: str
    pause_s: float = 0.0
    hold_s: float = 0.0
    point: str = ""
    nth: int = 1
    jump_s: int = 0


def faults(seed: int, stream: str, mean_pause_s: float = 3.0) -> Iterator[Fault]:
    """Yield the faults of a stream, infinitely; the same seed gives the same faults."""
    draw = random.Random(f"{seed} {stream}")
    while True:
        target = draw.choice(ALL_STREAMS[stream])
        kinds = _kinds(stream, target)
        kind = draw.choices(list(kinds), list(kinds.values()))[0]
        yield Fault(
            target,
            kind,
            pause_s=draw.expovariate(1 / mean_pause_s),
            hold_s=min(draw.expovariate(1) * _MEAN_HOLD_S.get(kind, 0.0), _LONGEST_HOLD_S),
            point=draw.choice(points_of(target)) if kind == "crash" else "",
            nth=draw.randint(1, _PASSINGS),
            jump_s=draw.choice(_JUMPS_S) if kind == "clock" else 0,
        )


def _kinds(stream: str, target: str) -> dict[str, int]:
    if stream in _HARSH_FAULTS:
        return dict.fromkeys(_HARSH_FAULTS[stream], 1)
    if target.startswith("link "):
        return _LINK_FAULTS
    return _BROKER_FAULTS if target.endswith("-broker") else _COMMAND_FAULTS
