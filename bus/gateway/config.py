"""The configuration of the gateway."""

from typing import Annotated

from msgspec import Meta, Struct

from bus.config import Broker, HealthAddress
from schemas.messages import Name


class GatewayConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration file of `gleaner gateway`."""

    name: Annotated[
        Name, Meta(description="name of this gateway; with several: gateway, gateway-2, and so on")
    ] = "gateway"
    broker: Broker = Broker()
    nodes: Annotated[
        tuple[Name, ...],
        Meta(min_length=1, description="edge nodes that it serves; each node by one gateway"),
    ] = ("edge-1",)
    listen: Annotated[
        str, Meta(pattern=r"^[^ ]+:[0-9]{1,5}$", description="HOST:PORT to which the Router POSTs")
    ] = "127.0.0.1:8480"
    router: Annotated[
        str, Meta(pattern=r"^https?://[^ ]+[^/ ]$", description="URL of cloudcore's Router")
    ] = "http://127.0.0.1:9443"
    max_body_bytes: Annotated[int, Meta(ge=10_000, description="larger messages are rejected")] = 2_000_000
    queue_bytes: Annotated[
        int, Meta(ge=10_000, description="most bytes of one node's messages that wait for the broker")
    ] = 16_000_000
    retry_cap_s: Annotated[
        float, Meta(gt=0, description="longest delay before a failed POST is repeated, in seconds")
    ] = 30.0
    receipt_expires_s: Annotated[
        float, Meta(gt=0, description="receipts are dropped after this; the edge then sends the sample again")
    ] = 60.0
    command_expires_s: Annotated[float, Meta(gt=0, description="commands are dropped after this")] = 10.0
    silent_s: Annotated[
        float,
        Meta(gt=0, description="policy and release are sent again to an edge that was silent for longer"),
    ] = 40.0
    repeat_s: Annotated[
        float, Meta(gt=0, description="interval at which policy and release are sent again to every edge")
    ] = 60.0
    probes: HealthAddress | None = None
