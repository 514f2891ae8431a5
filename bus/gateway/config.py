"""The configuration of the gateway."""

from typing import Annotated

from msgspec import Meta, Struct

from bus.config import Broker, HealthAddress
from schemas.messages import Name


class GatewayConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `gleaner gateway` reads from TOML."""

    name: Annotated[Name, Meta(description="gateway, or gateway-2 and so on where nodes are shared out")] = (
        "gateway"
    )
    broker: Broker = Broker()
    nodes: Annotated[
        tuple[Name, ...], Meta(min_length=1, description="the edge nodes that it serves, each by one gateway")
    ] = ("edge-1",)
    listen: Annotated[
        str, Meta(pattern=r"^[^ ]+:[0-9]{1,5}$", description="HOST:PORT for the Router's POSTs")
    ] = "127.0.0.1:8480"
    router: Annotated[
        str, Meta(pattern=r"^https?://[^ ]+[^/ ]$", description="where cloudcore's Router takes POSTs")
    ] = "http://127.0.0.1:9443"
    max_body_bytes: Annotated[int, Meta(ge=10_000, description="a larger message is refused")] = 2_000_000
    queue_bytes: Annotated[
        int, Meta(ge=10_000, description="of one node's messages that may wait for the broker")
    ] = 16_000_000
    post_timeout_s: Annotated[float, Meta(gt=0, description="deadline of one POST to the Router")] = 10.0
    retry_cap_s: Annotated[float, Meta(gt=0, description="longest wait before it is tried again")] = 30.0
    receipts_kept: Annotated[int, Meta(ge=1, description="receipts of one node that may wait")] = 1000
    receipt_expires_s: Annotated[
        float, Meta(gt=0, description="then it is dropped: the edge sends the sample again")
    ] = 60.0
    command_expires_s: Annotated[float, Meta(gt=0, description="then nobody wants it any more")] = 10.0
    silent_s: Annotated[
        float, Meta(gt=0, description="policy and release are sent again to an edge that was silent so long")
    ] = 40.0
    repeat_s: Annotated[
        float, Meta(gt=0, description="policy and release are sent again to every edge so often")
    ] = 60.0
    probes: HealthAddress | None = None
