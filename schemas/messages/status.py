"""What components report: their Status, with the models that are served and tested, and Events."""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from schemas.events import MEANINGS, EventName
from schemas.field_types import (
    EPOCH_MS,
    Count,
    Duration,
    Milliseconds,
    ModelName,
    ModelVersion,
    Name,
    OrderId,
    Sha256,
    Stage,
    Text,
)
from schemas.messages.base import Message


class ServedModel(Struct, frozen=True, kw_only=True):
    """A model as the model server reports it."""

    name: ModelName
    version: Annotated[ModelVersion | None, Meta(description="version served; null if none is")] = None
    state: Literal["available", "loading", "failed", "absent"]
    reason: Annotated[Text | None, Meta(description="why it is not available; null if it is")] = None
    sha256: Annotated[
        Sha256 | None,
        Meta(description="SHA-256 of the bundle in service; null if it did not come from a release"),
    ] = None


class VersionStats(Struct, frozen=True, kw_only=True):
    """Counts and latency of one model version on one node, since its canary or its service began."""

    version: ModelVersion
    answered: Annotated[Count, Meta(description="photos classified")] = 0
    failed: Annotated[Count, Meta(description="failed calls of the model server")] = 0
    p95_ms: Annotated[
        Duration | None,
        Meta(description="95th percentile of the latest calls, milliseconds; null below 20 calls"),
    ] = None


class CanaryReport(Struct, frozen=True, kw_only=True):
    """Progress of a shadow or canary release: on one edge node, or, from the rollout, over several."""

    stage: Stage
    champion: Annotated[VersionStats, Meta(description="the version in service")]
    challenger: Annotated[VersionStats, Meta(description="the version that is tested")]
    compared: Annotated[Count, Meta(description="photos classified by both versions")] = 0
    disagreed: Annotated[Count, Meta(description="compared photos with different labels")] = 0
    since_ms: Annotated[Milliseconds, Meta(description=f"when this stage began; {EPOCH_MS}")]


class Status(Message, frozen=True, kw_only=True):
    """State of a component, published regularly and at each change. Retained; `offline` is its last will."""

    node: Name
    name: Name
    state: Literal["online", "degraded", "offline"]
    at_ms: Annotated[Milliseconds, Meta(description=f"when the status was written; {EPOCH_MS}")]
    since_ms: Annotated[Milliseconds, Meta(description=f"when the component started; {EPOCH_MS}")]
    software: Annotated[str, Meta(max_length=64, description="version of the software")]
    run_id: Annotated[str, Meta(max_length=32, description="random id of this run; changes with each start")]
    reason: Annotated[
        Text | None, Meta(description="why it is degraded or offline, for people; null if it is online")
    ] = None
    model: Annotated[
        ServedModel | None, Meta(description="the model that an edge serves; null for other components")
    ] = None
    canary: Annotated[
        CanaryReport | None, Meta(description="progress of a shadow or canary release; null if there is none")
    ] = field(default=None, name="trial")
    serving: Annotated[
        VersionStats | None,
        Meta(description="figures of the version in service while no release is tested; null otherwise"),
    ] = None
    counters: Annotated[
        dict[str, Count], Meta(max_length=256, description="event counts since the start, by name")
    ] = {}
    clock_offsets_s: Annotated[
        dict[Name, float],
        Meta(
            max_length=64,
            description="of an edge: devices whose clock is wrong, with the edge's time minus theirs in "
            "seconds, as their photos arrive",
        ),
    ] = {}
    dataset: Annotated[
        Text | None,
        Meta(
            description="where the dataset is that a component of the cloud uses: a folder or URL, without "
            "user and query; null for other components"
        ),
    ] = None
    forgotten: Annotated[
        OrderId | None,
        Meta(description="of an edge: the order to forget photos that it carried out last; null: none"),
    ] = None


class Event(Message, frozen=True, kw_only=True):
    """Something that happened, for people and other components."""

    node: Name
    name: Name
    # A pattern and no enumeration: readers accept the events of later versions.
    event: Annotated[
        str,
        Meta(
            pattern=r"^[a-z][a-z0-9.-]{0,63}$(?!\n)",
            description="name of the event, see `x-events`; readers accept unknown names",
            examples=list(EventName),
            extra_json_schema={"x-events": dict(MEANINGS)},
        ),
    ]
    at_ms: Annotated[Milliseconds, Meta(description=f"when it happened; {EPOCH_MS}")]
    reason: Annotated[Text | None, Meta(description="details for people; null if there are none")] = None
    facts: Annotated[
        # The title names the type in generated code.
        dict[str, Annotated[str | int | float | bool, Meta(title="Fact")]],
        Meta(max_length=64, description="details by name, for programs; the names depend on the event"),
    ] = {}
