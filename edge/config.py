"""The configuration of an edge node."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from bus.config import Broker, HealthAddress, OutboxLimits
from schemas.field_types import DevicePattern, GroupChoice, Label, ModelName, Name
from schemas.policy_rules import HarvestRules, Vote
from schemas.topics import Handler, check_node_name


class EventBusLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of the uplink over KubeEdge's EventBus, which sends 30 messages a second and loses some."""

    per_s: Annotated[float, Meta(gt=0, le=1000, description="samples per second")] = 10.0
    max_bytes: Annotated[int, Meta(ge=10_000, description="largest message; a larger sample is refused")] = (
        1_000_000
    )


class EdgeConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `gleaner edge` reads from TOML."""

    node: Annotated[Name, Meta(description="name of this edge node")] = "edge-1"
    name: Annotated[
        Handler,
        Meta(description="name of this handler; all but `edge` need shares = true"),
    ] = "edge"
    shares: Annotated[
        bool,
        Meta(
            description="several handlers share the node's photos; each needs its own state_dir, models_dir "
            "and model server"
        ),
    ] = False
    broker: Broker = Broker()
    uplink: Annotated[
        Literal["bridge", "eventbus"],
        Meta(description="how messages reach the cloud: mosquitto bridge or KubeEdge's EventBus"),
    ] = "bridge"
    eventbus: EventBusLimits = EventBusLimits()
    serving: Annotated[str, Meta(min_length=1, description="host:port of the model server's gRPC API")] = (
        "127.0.0.1:8500"
    )
    model: Annotated[ModelName, Meta(description="name of the model on the server")] = "pets"
    classes: Annotated[
        Annotated[tuple[Label, ...], Meta(min_length=2)] | None,
        Meta(description="classes in the order of the model's scores, for one without release and assets"),
    ] = None
    scores: Annotated[
        Literal["logits", "probabilities"] | None,
        Meta(description="what the model gives. Absent: logits if its output has that name"),
    ] = None
    models_dir: Annotated[
        str | None, Meta(description="folder that holds <model>/<version>, shared with the model server")
    ] = None
    release_key: Annotated[
        str | None,
        Meta(description="PEM file of a public key: unsigned releases are refused. Absent: any is installed"),
    ] = None
    mirror: Annotated[
        Annotated[str, Meta(pattern=r"^https?://[^/ ?#@]+/?$")] | None,
        Meta(
            description="address of the site's `gleaner mirror`, from which bundles are fetched; where it "
            "fails, from their own URL. Over https the edge shows it the certificate of `broker.tls`, and "
            "trusts its CA",
        ),
    ] = None
    state_dir: Annotated[
        str, Meta(min_length=1, description="folder for the outbox, the result log and the harvest history")
    ] = "/var/lib/gleaner/edge"
    max_photo_bytes: Annotated[int, Meta(ge=1, description="larger photos are rejected")] = 3 * 1024 * 1024
    max_pixels: Annotated[
        int, Meta(ge=1, description="photos with more pixels are rejected without decoding")
    ] = 16_000_000
    calls: Annotated[
        int, Meta(ge=1, le=64, description="concurrent calls to the model server; a device is in at most one")
    ] = 2
    max_batch: Annotated[int, Meta(ge=2, le=256, description="most photos in one call")] = 16
    batch_per_device: Annotated[
        int,
        Meta(
            ge=1, le=256, description="of these, photos of one device; raise it where large batches are cheap"
        ),
    ] = 1
    predict_timeout_s: Annotated[float, Meta(gt=0, description="deadline of one call")] = 30.0
    waiting: Annotated[int, Meta(ge=1, description="most photos in flight, from arrival to result")] = 256
    waiting_per_device: Annotated[
        int, Meta(ge=1, description="of these, photos of one device; further ones are deferred and dropped")
    ] = 64
    waiting_bytes: Annotated[int, Meta(ge=1, description="most bytes of images in flight")] = 256_000_000
    answers_kept: Annotated[int, Meta(ge=1, description="results kept for photos that are sent again")] = (
        200_000
    )
    harvest: HarvestRules = HarvestRules()
    vote: Annotated[
        Vote, Meta(description="how many of a device's latest answers must agree; a policy overrides it")
    ] = Vote()
    votes: Annotated[dict[Name, Vote], Meta(description="overrides of `vote` by device")] = {}
    groups: Annotated[
        dict[DevicePattern, GroupChoice],
        Meta(
            description="groups of devices, by name or pattern; `*` as a group makes each device one of its "
            "own; a policy overrides it"
        ),
    ] = {}
    recent_bytes: Annotated[
        int,
        Meta(ge=0, description="memory for photos that were not harvested, in case of a label; 0 keeps none"),
    ] = 4_000_000
    homeassistant: Annotated[
        bool,
        Meta(description="announce devices to Home Assistant by MQTT discovery, with answers and photos"),
    ] = False
    homeassistant_discovery: Annotated[
        Literal["entities", "device"],
        Meta(
            description="one message for each entity, which every Home Assistant reads, or for each device, "
            "since its 2024.11"
        ),
    ] = "entities"
    probes: HealthAddress | None = None
    outbox: OutboxLimits = OutboxLimits()

    def __post_init__(self) -> None:
        """Refuse a reserved name; raises TopicError."""
        check_node_name(self.node)
