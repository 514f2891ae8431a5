"""The ways in which the handler meets a photo: it is harvested, or only looked at. Each has its own node.

There is no third way: since damage is reported for each JPEG, one is decoded also where a cap leaves no room.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

_NO_LIMIT = 10**9


@dataclass(frozen=True, slots=True)
class Way:
    """A handler with its own node.

    Args:
        name: In the document.
        node: Its node.
        settings: Fields of its configuration.
    """

    name: str
    node: str
    settings: Mapping[str, object] = field(default_factory=dict)


HARVESTED = Way(
    "Gleaner, harvested",
    "edge-1",
    {
        "harvest.auto_confidence": 0.0,
        "harvest.near_duplicate_s": 0.0,
        "harvest.quota_per_day": _NO_LIMIT,
        **{
            f"harvest.caps.{unit}per_{time}": _NO_LIMIT
            for unit in ("", "bytes_")
            for time in ("minute", "hour", "day")
        },
    },
)
LOOKED_AT = Way(
    "Gleaner, looked at",
    "edge-2",
    {"harvest.auto": False, "harvest.audit_share": 0.0, "harvest.hard_entropy": 1.0},
)
WAYS = (HARVESTED, LOOKED_AT)
NOTE = (
    f"Of `{HARVESTED.name}` each photo is decoded once and becomes a sample, which is on the disk before the "
    f"result is published and gets a receipt; of `{LOOKED_AT.name}` each photo is decoded and none becomes a "
    "sample. A photo of neither kind does not exist: every JPEG is checked, also where a cap is full."
)
