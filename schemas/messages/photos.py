"""The messages of version 1, exchanged between device, edge and cloud.

Each class is the payload of one topic in `schemas/topics.py`. Readers ignore unknown fields, and a field that
is added later has a default, so that old and new components understand each other (guarantee G7).

A Python name may differ from the name on the wire: `field(name=...)` states the wire name.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from schemas.class_names import NEITHER
from schemas.events import MEANINGS, EventName
from schemas.field_types import (
    EPOCH_MS,
    Count,
    DevicePattern,
    DHash,
    Duration,
    Entropy,
    Group,
    GroupChoice,
    Image,
    Label,
    Margin,
    Milliseconds,
    ModelName,
    ModelVersion,
    Name,
    Novelty,
    OrderId,
    PhotoId,
    Probability,
    Raw,
    Rejection,
    Scores,
    Seconds,
    Sha256,
    Share,
    Stage,
    Text,
    Trace,
    Variant,
)
from schemas.lanes import LANES
from schemas.policy_rules import HarvestRules, Vote

VERSION = 1
MAX_FORGET_IDS = 5000
"""Most photos that one message names to be forgotten."""


# Defaults are not written, so that a field added later does not change messages that do not use it.
class Message(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="v", tag=VERSION):
    """Base of all messages: adds the field `v` with the version of the contract."""


class Photo(Message, frozen=True, kw_only=True):
    """A photo taken by a device. A bare JPEG or PNG on the topic is accepted as a Photo too."""

    photo_id: PhotoId
    node: Name
    device: Name
    image: Image
    taken_at_ms: Annotated[
        Milliseconds | None,
        Meta(description=f"when it was taken, by the device's clock; {EPOCH_MS}; null if unknown"),
    ] = None
    sequence: Annotated[Count, Meta(description="running number of the device's photos")] = 0
    historical: Annotated[
        bool, Meta(description="true if sent late, after an outage; handled after live photos")
    ] = False
    expires_at_ms: Annotated[
        Milliseconds | None,
        Meta(description=f"rejected as `expired` after this time; {EPOCH_MS}; null: never"),
    ] = None
    damaged: Annotated[
        Text | None,
        Meta(description="why some pixels may be wrong, if the sender knows; null otherwise"),
    ] = None
    crop: Annotated[
        Annotated[tuple[Share, ...], Meta(min_length=4, max_length=4)] | None,
        Meta(
            description="the part of the camera's picture that `image` shows: left, top, right and bottom "
            "edge as shares of width and height, left < right and top < bottom; null: all of it. The device "
            "has cropped it already"
        ),
    ] = None
    trace: Trace = None

    def __post_init__(self) -> None:
        """Refuse an empty part; raises ValueError."""
        if self.crop is not None:
            left, top, right, bottom = self.crop
            if not (left < right and top < bottom):
                raise ValueError("expected left < right and top < bottom in crop")


class Result(Message, frozen=True, kw_only=True):
    """The answer to a Photo, which also acknowledges it.

    `ok` and `rejected` are final. With `deferred` the photo is kept for the given reason, and a final Result
    follows.
    """

    photo_id: PhotoId
    node: Name
    device: Name
    status: Literal["ok", "rejected", "deferred"]
    label: Annotated[Label | None, Meta(description="most probable class; null unless `ok`")] = None
    confidence: Annotated[
        Probability | None,
        Meta(description="calibrated probability of `label`; null unless `ok`"),
    ] = None
    scores: Annotated[Scores | None, Meta(description="probability of each class; null unless `ok`")] = None
    raw_confidence: Raw = None
    margin: Margin = None
    entropy: Entropy = None
    novelty: Novelty = None
    confirmed: Annotated[
        bool | None,
        Meta(
            description="whether enough of the device's latest answers, this one included, have this label; "
            "null if the policy sets no vote, and for late photos"
        ),
    ] = None
    model: Annotated[ModelName | None, Meta(description="model that classified; null if none did")] = None
    model_version: Annotated[
        ModelVersion | None, Meta(description="version of that model; null if none classified")
    ] = None
    group: Group = ""
    variant: Variant = ""
    code: Annotated[Rejection | None, Meta(description="rejection code; null unless `rejected`")] = None
    reason: Annotated[
        Text | None, Meta(description="why it was rejected or deferred, for people; null if `ok`")
    ] = None
    retry_after_s: Annotated[
        Seconds | None,
        Meta(
            description="for `deferred`: the edge does not keep the photo, send it again after this many "
            "seconds; null: it is kept, and its final result follows by itself"
        ),
    ] = None
    harvest: Annotated[
        Text | None,
        Meta(description="lane it was harvested in, or why it was not; null if not considered"),
    ] = None
    taken_at_ms: Annotated[
        Milliseconds | None, Meta(description=f"copied from the Photo; {EPOCH_MS}; null if unknown")
    ] = None
    damaged: Annotated[
        Text | None,
        Meta(
            description="why some pixels of the photo are missing or wrong; it is then not harvested in lane "
            "auto; null if none are known to be"
        ),
    ] = None
    answered_at_ms: Annotated[Milliseconds, Meta(description=f"when the edge answered; {EPOCH_MS}")]
    edge_ms: Annotated[
        Duration | None,
        Meta(description="milliseconds from arrival at the edge to this answer; null if unknown"),
    ] = None
    historical: Annotated[bool, Meta(description="copied from the Photo")] = False
    trace: Trace = None


class Sample(Message, frozen=True, kw_only=True):
    """A harvested photo, shrunk to the training size, with its prediction."""

    photo_id: PhotoId
    node: Name
    device: Name
    image: Image
    width: Annotated[int, Meta(ge=1, le=65535, description="in pixels, of the shrunk image")]
    height: Annotated[int, Meta(ge=1, le=65535, description="in pixels, of the shrunk image")]
    dhash: DHash
    lane: Annotated[
        str,
        Meta(
            pattern=r"^[a-z-]{1,32}$(?!\n)",
            description=f"why it was harvested: {', '.join(f'`{lane}`' for lane in LANES)}, or a later one",
        ),
    ]
    label: Annotated[Label, Meta(description="class predicted by the edge")]
    confidence: Annotated[Probability, Meta(description="calibrated probability of `label`")]
    scores: Scores
    raw_confidence: Raw = None
    margin: Margin = None
    entropy: Entropy = None
    novelty: Novelty = None
    # Audit statistics weight each photo by the inverse of this probability.
    inclusion: Annotated[
        Probability | None,
        Meta(description="probability of being drawn for the lane audit; null in other lanes"),
    ] = None
    model: ModelName
    model_version: ModelVersion
    group: Group = ""
    variant: Variant = ""
    embedding: Annotated[
        bytes,
        Meta(
            max_length=65536,
            description="embedding of the photo, float32 little endian; empty if the model has none",
        ),
    ] = b""
    taken_at_ms: Annotated[
        Milliseconds | None, Meta(description=f"copied from the Photo; {EPOCH_MS}; null if unknown")
    ] = None
    harvested_at_ms: Annotated[Milliseconds, Meta(description=f"when the edge harvested it; {EPOCH_MS}")]
    trace: Trace = None


class Receipt(Message, frozen=True, kw_only=True):
    """The answer to a Sample: it is stored in the cloud, or never will be."""

    photo_id: PhotoId
    node: Name
    status: Annotated[
        Literal["stored", "duplicate", "refused"],
        Meta(description="stored: on the cloud's disk; duplicate: stored before; refused: can never be"),
    ]
    reason: Annotated[Text | None, Meta(description="why it was refused, for people; null otherwise")] = None
    received_at_ms: Annotated[
        Milliseconds, Meta(description=f"when the cloud received the sample; {EPOCH_MS}")
    ]
    trace: Trace = None


class Feedback(Message, frozen=True, kw_only=True):
    """The true label of a photo, given by a person or by a device that knows it."""

    photo_id: PhotoId
    node: Name
    device: Name
    label: Annotated[
        Label,
        Meta(
            # Words and no pattern: a message of version 1 must stay valid, and readers tidy what they can.
            description=f"name of a class, or `{NEITHER}` if the photo shows none of the classes; composed "
            "(NFC), without control and invisible characters, and without white space at its ends",
        ),
    ]
    by: Annotated[str, Meta(max_length=128, description="who gave the label")] = "unknown"
    at_ms: Annotated[
        Milliseconds | None,
        Meta(
            description=f"when the label was given; {EPOCH_MS}; null: when it arrived, but then it does not "
            "replace a label by another person or device: a correction needs a time"
        ),
    ] = None


class Command(Message, frozen=True, kw_only=True):
    """A command to a device: take a photo now, or change the interval between photos."""

    node: Name
    device: Name
    action: Literal["capture", "set-interval"]
    interval_s: Annotated[
        Seconds | None,
        Meta(description="for `set-interval`: seconds between photos, 0 stops the timer; otherwise null"),
    ] = None


class Policy(Message, frozen=True, kw_only=True):
    """The harvest rules for an edge node, which of its answers count, and its groups of devices. Retained."""

    node: Name
    harvest: HarvestRules = HarvestRules()
    vote: Annotated[Vote, Meta(description="of every device of the node")] = Vote()
    votes: Annotated[
        dict[Name, Vote], Meta(max_length=1024, description="overrides of `vote` by device")
    ] = {}
    groups: Annotated[
        dict[DevicePattern, GroupChoice],
        Meta(
            max_length=1024,
            description="groups of devices by name or pattern, whose photos are answered by the head of the "
            "group if the version has one; the most specific pattern counts",
        ),
    ] = {}
    issued_at_ms: Annotated[
        Milliseconds | None, Meta(description=f"when it was published; {EPOCH_MS}; null if unknown")
    ] = None


class Release(Message, frozen=True, kw_only=True):
    """The model version for an edge node to serve. Retained; the bundle itself is downloaded from `url`."""

    node: Name
    model: ModelName
    version: ModelVersion
    url: Annotated[
        str, Meta(min_length=1, max_length=2048, description="URL of the bundle: file, http, https or s3")
    ]
    sha256: Annotated[Sha256, Meta(description="SHA-256 of the bundle, hexadecimal")]
    # Known before the download, which is stopped at this size.
    size_bytes: Annotated[int, Meta(ge=1, le=2**40, description="size of the bundle in bytes")]
    classes: Annotated[
        list[Label],
        Meta(min_length=2, max_length=1024, description="classes, in the order of the model's outputs"),
    ]
    metrics: Annotated[
        dict[str, float], Meta(max_length=64, description="metrics of the version by name, for people")
    ] = {}
    temperature: Annotated[
        float,
        Meta(ge=0.01, le=100, description="the model divides its logits by it, for calibration"),
    ] = 1.0
    # For people: nodes read the heads from the bundle, whose digest is signed.
    groups: Annotated[
        list[Group], Meta(max_length=1024, description="groups of devices that have a head in the bundle")
    ] = []
    stage: Annotated[
        Stage,
        Meta(
            description="shadow: compared with the baseline, its answers are not sent; canary: serves some "
            "devices; all: serves every device"
        ),
    ] = "all"
    share: Annotated[
        Probability,
        Meta(description="for canary: share of the devices, chosen by a hash of their names"),
    ] = 1.0
    # A field on which nodes act must be signed: new ones belong into SIGNED_LATER of bus/security/signing.py.
    baseline: Annotated[
        ModelVersion | None,
        Meta(description="for shadow and canary: the version in service meanwhile; null for all"),
    ] = field(default=None, name="beside")
    # Not signed, because nodes that do not know it would reject the release: it only saves bytes, since the
    # bundle must have `sha256` however it was fetched.
    parts: Annotated[
        Sha256 | None,
        Meta(
            description="SHA-256 of the list at the path of `url` with `.parts.parts` behind it, by which "
            "nodes fetch only the parts that they lack; null: the bundle is fetched as a whole"
        ),
    ] = None
    released_at_ms: Annotated[
        Milliseconds,
        Meta(description=f"when it was released; older signed releases are refused; {EPOCH_MS}"),
    ]
    # The description is inside the union, because the schema was first published so.
    signature: (
        Annotated[
            str,
            Meta(max_length=1024, description="Ed25519 signature, hexadecimal; null if unsigned"),
        ]
        | None
    ) = None


class Forget(Message, frozen=True, kw_only=True):
    """Photos that an edge node forgets, with their answers, samples and hashes. Retained.

    It has all that the node has not confirmed. The node confirms it by `forgotten` in its Status.
    """

    node: Name
    order_id: OrderId
    # The codec reads messages of 256 KiB: these limits fit in it, with device names of any length.
    photo_ids: Annotated[
        list[PhotoId], Meta(max_length=MAX_FORGET_IDS, description="photos by id; unknown ones are ignored")
    ] = []
    devices: Annotated[
        dict[Name, Milliseconds],
        Meta(
            max_length=1024,
            description=f"every photo of a device that the node answered before a time; {EPOCH_MS}",
        ),
    ] = {}
    before_ms: Annotated[
        Milliseconds | None,
        Meta(description=f"every photo that the node answered before this time; {EPOCH_MS}; null: none"),
    ] = None
    at_ms: Annotated[Milliseconds, Meta(description=f"when the order was given; {EPOCH_MS}")]


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


class Steering(Message, frozen=True, kw_only=True):
    """An operator's order to a running rollout. Retained: a controller that is away finds it later."""

    node: Name
    name: Name
    order_id: OrderId
    action: Annotated[
        Literal["pause", "resume", "roll-back", "promote"],
        Meta(
            description="pause: no further stage, a bad version is still rolled back; resume: go on; "
            "roll-back: every node returns to the champion; promote: every node gets the version now, or, "
            "while it is only watched, the rollout is finished"
        ),
    ]
    version: Annotated[ModelVersion, Meta(description="version that is rolled out")]
    began_ms: Annotated[
        Milliseconds,
        Meta(description=f"when that rollout began; an order for another rollout is ignored; {EPOCH_MS}"),
    ]
    by: Annotated[str, Meta(min_length=1, max_length=128, description="who gave the order")]
    reason: Annotated[Text | None, Meta(description="why, for people; null if not given")] = None
    at_ms: Annotated[Milliseconds, Meta(description=f"when the order was given; {EPOCH_MS}")]
