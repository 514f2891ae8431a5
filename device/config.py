"""The configuration of a device."""

from typing import Annotated

from msgspec import Meta, Struct

from bus.config import Broker, HealthAddress, OutboxLimits
from schemas.messages import Name, Seconds


class DeviceConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `gleaner device` reads from TOML."""

    node: Annotated[Name, Meta(description="edge node that answers this device")] = "edge-1"
    name: Annotated[Name, Meta(description="name of this device at its node")] = "pi-1"
    broker: Broker = Broker()
    camera: Annotated[str, Meta(min_length=1, description="folder:DIR, drawn, usb:0 or picamera")] = "drawn"
    interval_s: Annotated[
        Seconds, Meta(description="a photo so often, unless motion decides; 0: on command alone")
    ] = 5.0
    motion: Annotated[
        float, Meta(ge=0, le=1, description="a photo when frames differ by this much on average; 0: off")
    ] = 0.0
    motion_every_s: Annotated[float, Meta(gt=0, description="how often to look for motion, in seconds")] = 0.5
    count: Annotated[int, Meta(ge=1, description="end after so many photos; never if absent")] | None = None
    expires_s: (
        Annotated[float, Meta(gt=0, description="a later answer is worth nothing; never if absent")] | None
    ) = None
    state_dir: Annotated[str, Meta(min_length=1, description="folder for the outbox and the answers")] = (
        "/var/lib/gleaner/device"
    )
    answers_kept: Annotated[int, Meta(ge=1, description="answers kept on disk")] = 10_000
    probes: HealthAddress | None = None
    outbox: OutboxLimits = OutboxLimits(max_bytes=500_000_000, max_messages=20_000)
