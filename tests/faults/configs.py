"""Known photos, and the configurations of the components."""

import random
from pathlib import Path

from bus.config import Broker, OutboxLimits
from cloud.collector.config import CollectorConfig
from device.config import DeviceConfig
from edge.config import EdgeConfig
from schemas.policy_rules import Caps, HarvestRules
from tests.faults.ledger import BROKEN
from tests.nodes import NODE, photo, truncated

_TRUTHS = {"red": "cat", "blue": "dog"}  # label of a photo by its colour
_PHOTOS = 200
_SIZE = (180, 160)  # 2 to 3 kB
_KEEPALIVE_S = 5
_MANY = 1_000_000
RESEND = OutboxLimits(resend_first_s=2.0, resend_cap_s=10.0)
_CAPS = Caps(
    **dict.fromkeys(("per_minute", "per_hour", "per_day"), _MANY),
    **dict.fromkeys(("bytes_per_minute", "bytes_per_hour", "bytes_per_day"), _MANY * 10_000),
)
# Every photo is harvested and none is a near-duplicate, so that each tests G1 and G2.
RULES = HarvestRules(auto_confidence=0.5, near_duplicate_s=0, quota_per_day=_MANY, caps=_CAPS)


def take_photos(folder: Path) -> None:
    """Write the known photos, one folder per label; one photo in fifty is truncated."""
    draw = random.Random(7)
    for number in range(_PHOTOS):
        colour = draw.choice(list(_TRUTHS))
        image, label = photo(number, colour, _SIZE), _TRUTHS[colour]
        if number % 50 == 49:
            image, label = truncated(image), BROKEN
        path = folder / label / f"{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)


def collector(broker_port: int, folder: Path) -> CollectorConfig:
    """Return the configuration of the collector, with small commits."""
    dataset = str(folder / "dataset.lance")
    return CollectorConfig(broker=_address(broker_port), dataset=dataset, batch=32)


def edge(broker_port: int, serving_port: int, folder: Path, node: str = NODE) -> EdgeConfig:
    """Return the configuration of the edge, which harvests every photo."""
    return EdgeConfig(
        node=node,
        broker=_address(broker_port),
        serving=f"127.0.0.1:{serving_port}",
        models_dir=str(folder / "models"),
        state_dir=str(folder / "edge"),
        predict_timeout_s=5.0,
        harvest=RULES,
        outbox=RESEND,
    )


def device(name: str, broker_port: int, folder: Path, interval_s: float, node: str = NODE) -> DeviceConfig:
    """Return the configuration of a device that replays the known photos forever, in its own order."""
    return DeviceConfig(
        node=node,
        name=name,
        broker=_address(broker_port),
        camera=f"folder:{folder / 'photos'}?loop=1&shuffle={name[-1]}",
        interval_s=interval_s,
        state_dir=str(folder / name),
        answers_kept=_MANY,
        outbox=RESEND,
    )


def _address(port: int) -> Broker:
    return Broker(port=port, keepalive_s=_KEEPALIVE_S)
