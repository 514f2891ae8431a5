"""The configuration of a device."""

from typing import Annotated

from msgspec import Meta, Struct

from bus.config import Broker, ConfigError, HealthAddress, OutboxLimits
from schemas.field_types import Name, Seconds, Share
from schemas.pixels import MAX_PHOTO_BYTES
from schemas.topics import check_device_name, check_node_name


class DeviceConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of `gleaner device`."""

    node: Annotated[Name, Meta(description="edge node that classifies this device's photos")] = "edge-1"
    name: Annotated[Name, Meta(description="name of this device at its node")] = "pi-1"
    broker: Broker = Broker()
    camera: Annotated[
        str,
        Meta(
            min_length=1,
            description="folder:DIR, usb:0, picamera, http:…, rtsp:…, mqtt:TOPIC, or drawn (in a checkout)",
        ),
    ] = "drawn"
    size: (
        Annotated[
            str,
            Meta(
                pattern="^[1-9][0-9]{1,4}x[1-9][0-9]{1,4}$",
                description="WIDTHxHEIGHT in pixels: asked of usb: and picamera, larger photos are reduced; "
                "absent: only those that no edge takes",
            ),
        ]
        | None
    ) = None
    quality: Annotated[
        int, Meta(ge=1, le=100, description="JPEG quality of photos that this device encodes")
    ] = 85
    crop: (
        Annotated[
            tuple[Share, ...],
            Meta(
                min_length=4,
                max_length=4,
                description="part of the picture to send: left, top, right, bottom edge as shares of width "
                "and height, from the upper left corner; all of it if absent",
            ),
        ]
        | None
    ) = None
    max_photo_bytes: Annotated[
        int, Meta(ge=10_000, description="a larger photo is encoded again, smaller until it fits")
    ] = MAX_PHOTO_BYTES
    interval_s: Annotated[
        Seconds, Meta(description="seconds between photos, unless `motion` is set; 0: only on command")
    ] = 5.0
    motion: Annotated[
        float,
        Meta(ge=0, le=1, description="mean difference of two frames that triggers a photo; 0: off"),
    ] = 0.0
    motion_every_s: Annotated[float, Meta(gt=0, description="seconds between two checks for motion")] = 0.5
    motion_pause_s: Annotated[
        Seconds, Meta(description="least seconds between two photos because of motion")
    ] = 0.0
    heartbeat_s: Annotated[
        Seconds, Meta(description="with `motion`, seconds after which a photo is sent without any; 0: never")
    ] = 0.0
    count: Annotated[int, Meta(ge=1, description="photos after which it exits; never if absent")] | None = (
        None
    )
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

    def __post_init__(self) -> None:
        """Refuse reserved names and an empty crop; raises TopicError or ConfigError."""
        check_node_name(self.node)
        check_device_name(self.name)
        if self.crop is not None:
            left, top, right, bottom = self.crop
            if not (left < right and top < bottom):
                raise ConfigError("crop", expected="left < right and top < bottom", got=list(self.crop))

    def size_px(self) -> tuple[int, int] | None:
        """Return `size` as width and height in pixels."""
        if self.size is None:
            return None
        width, _, height = self.size.partition("x")
        return int(width), int(height)
