"""The configuration of the gateway."""

from typing import Annotated

from msgspec import Meta, Struct

from bus.config import Broker, HealthAddress
from schemas.field_types import Name
from schemas.topics import check_component_name, check_node_name


class RuleRepairConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the gateway keeps the Rules of its nodes working."""

    gateway: Annotated[
        str,
        Meta(pattern=r"^https?://[^ ]+[^/ ]$", description="URL of this gateway, as reached from cloudcore"),
    ] = "http://gateway.gleaner.svc:8480"
    every_s: Annotated[
        float, Meta(gt=0, description="interval at which Rules that do not work are probed, in seconds")
    ] = 15.0
    recheck_s: Annotated[
        float, Meta(gt=0, description="interval at which Rules that work are probed, in seconds")
    ] = 600.0
    server: Annotated[str, Meta(description="API server (in a pod: that of its cluster)")] | None = None
    server_token: (
        Annotated[str, Meta(description="file with a bearer token (in a pod: that of its service account)")]
        | None
    ) = None
    server_ca: Annotated[str, Meta(description="CA certificate of the API server, PEM")] | None = None


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
        Meta(gt=0, description="an edge silent for longer gets policy and release again, its Rules a probe"),
    ] = 40.0
    repeat_s: Annotated[
        float, Meta(gt=0, description="interval at which policy and release are sent again to every edge")
    ] = 60.0
    probes: HealthAddress | None = None
    rule_repair: RuleRepairConfig | None = None

    def __post_init__(self) -> None:
        """Refuse reserved names; raises TopicError."""
        check_component_name(self.name, "gateway")
        for node in self.nodes:
            check_node_name(node)
