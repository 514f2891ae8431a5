"""The configuration of an edge node."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from bus.config import Broker, HealthAddress, OutboxLimits
from schemas.messages import HarvestRules, ModelName, Name
from schemas.topics import Handler


class EventBusLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What KubeEdge's EventBus is asked to carry; it sends 30 messages a second and loses some."""

    per_s: Annotated[float, Meta(gt=0, le=1000, description="samples a second")] = 10.0
    max_bytes: Annotated[int, Meta(ge=10_000, description="largest message; a larger sample is refused")] = (
        1_000_000
    )


class EdgeConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `gleaner edge` reads from TOML."""

    node: Annotated[Name, Meta(description="name of this edge node")] = "edge-1"
    name: Annotated[
        Handler,
        Meta(description="which of the node's handlers this is; all but `edge` have to share"),
    ] = "edge"
    shares: Annotated[
        bool,
        Meta(
            description="whether the node's handlers share its photos; each has a state_dir, a models_dir "
            "and a model server of its own"
        ),
    ] = False
    broker: Broker = Broker()
    uplink: Annotated[
        Literal["bridge", "eventbus"],
        Meta(description="how the broker reaches the cloud's: by mosquitto's bridge or KubeEdge's EventBus"),
    ] = "bridge"
    eventbus: EventBusLimits = EventBusLimits()
    serving: Annotated[str, Meta(min_length=1, description="host:port of the model server's gRPC API")] = (
        "127.0.0.1:8500"
    )
    model: Annotated[ModelName, Meta(description="name of the model on the server")] = "pets"
    models_dir: Annotated[
        str | None, Meta(description="folder that holds <model>/<version>, shared with the model server")
    ] = None
    release_key: Annotated[
        str | None,
        Meta(description="PEM file; a release that its key did not sign is refused. Absent: none is"),
    ] = None
    state_dir: Annotated[
        str, Meta(min_length=1, description="folder for outbox, answers and what was harvested")
    ] = "/var/lib/gleaner/edge"
    max_photo_bytes: Annotated[int, Meta(ge=1, description="larger ones are rejected")] = 3 * 1024 * 1024
    max_pixels: Annotated[int, Meta(ge=1, description="larger ones are rejected undecoded")] = 16_000_000
    calls: Annotated[
        int, Meta(ge=1, le=64, description="calls to the model server at once; a device is in one at most")
    ] = 2
    max_batch: Annotated[int, Meta(ge=2, le=256, description="most photos in one call")] = 16
    batch_per_device: Annotated[
        int,
        Meta(ge=1, le=256, description="of these, photos of one device; raise it where batches are cheap"),
    ] = 1
    predict_timeout_s: Annotated[float, Meta(gt=0, description="deadline of one call")] = 30.0
    waiting: Annotated[int, Meta(ge=1, description="photos that may be in hand, from arrival to answer")] = (
        256
    )
    waiting_per_device: Annotated[
        int, Meta(ge=1, description="of these, photos of one device; more are deferred and not kept")
    ] = 64
    waiting_bytes: Annotated[int, Meta(ge=1, description="bytes of images that may be in hand")] = 256_000_000
    answers_kept: Annotated[int, Meta(ge=1, description="answers remembered for photos that come again")] = (
        200_000
    )
    harvest: HarvestRules = HarvestRules()
    recent_bytes: Annotated[
        int,
        Meta(ge=0, description="of photos not harvested, kept for a label that follows; 0 keeps none"),
    ] = 4_000_000
    probes: HealthAddress | None = None
    outbox: OutboxLimits = OutboxLimits()
