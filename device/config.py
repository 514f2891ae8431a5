"""The configuration of a device."""

from typing import Annotated

from msgspec import Meta, Struct

from bus.config import Broker, HealthAddress, OutboxLimits
from schemas.messages import Name, Seconds


class DeviceConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of `gleaner device`."""

    node: Annotated[Name, Meta(description="edge node that classifies this device's photos")] = "edge-1"
    name: Annotated[Name, Meta(description="name of this device at its node")] = "pi-1"
    broker: Broker = Broker()
    camera: Annotated[
        str,
        Meta(
            min_length=1,
            description="folder:DIR, usb:0, picamera, or drawn (in a checkout)",
        ),
    ] = "drawn"
    interval_s: Annotated[
        Seconds, Meta(description="seconds between photos, unless `motion` is set; 0: only on command")
    ] = 5.0
    motion: Annotated[
        float,
        Meta(ge=0, le=1, description="mean difference of two frames that triggers a photo; 0: off"),
    ] = 0.0
    motion_every_s: Annotated[float, Meta(gt=0, description="seconds between two checks for motion")] = 0.5
    count: Annotated[int, Meta(ge=1, description="exit after so many photos; never if absent")] | None = None
    expires_s: (
        Annotated[float, Meta(gt=0, description="seconds after which a result is useless; never if absent")]
        | None
    ) = None
    state_dir: Annotated[str, Meta(min_length=1, description="folder for the outbox and the results")] = (
        "/var/lib/gleaner/device"
    )
    answers_kept: Annotated[int, Meta(ge=1, description="number of results kept on disk")] = 10_000
    probes: HealthAddress | None = None
    outbox: OutboxLimits = OutboxLimits(max_bytes=500_000_000, max_messages=20_000)
