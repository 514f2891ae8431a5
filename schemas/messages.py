"""The messages of version 1: what travels between device, edge and cloud.

Each class is one body of `schemas/topics.py`. Readers ignore fields that they do not know, and every
field added later has a default, so that old and new components talk to each other (guarantee G7).
Times are UTC in milliseconds since 1970.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

VERSION = 1
NEITHER = "neither"
"""Label of a photo that shows none of the classes: a person's word, and never a class itself."""

Name = Annotated[
    str,
    Meta(
        # `$(?!\n)`: a plain `$` also matches before a line break at the end.
        pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$(?!\n)",
        description="DNS label: 1 to 63 lower-case letters, digits and inner hyphens",
    ),
]
PhotoId = Annotated[
    str,
    Meta(
        pattern=r"^[0-9a-f]{32}$(?!\n)",
        description="128 bits as 32 hexadecimal digits; BLAKE2b of the bytes for a bare image",
    ),
]
Milliseconds = Annotated[int, Meta(ge=0, le=2**53, description="UTC, milliseconds since 1970")]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
Duration = Annotated[float, Meta(ge=0, le=1e12, description="milliseconds")]
Probability = Annotated[float, Meta(ge=0, le=1)]
Label = Annotated[str, Meta(min_length=1, max_length=128, description="name of a class")]
MAX_TEXT_CHARS = 1024
"""Length limit of a reason and of other free text in a message."""
Text = Annotated[str, Meta(max_length=MAX_TEXT_CHARS)]
Image = Annotated[bytes, Meta(min_length=1, description="encoded JPEG or PNG")]
Scores = Annotated[dict[Label, Probability], Meta(max_length=1024, description="probability by class")]
ModelName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$(?!\n)")]
ModelVersion = Annotated[int, Meta(ge=1, le=2**53)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
DHash = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}$(?!\n)", description="64-bit difference hash")]
Stage = Literal["shadow", "canary", "all"]

# How sure a model is of one photo, in the same words wherever it is said.
Raw = Annotated[Probability | None, Meta(description="confidence in the label without the temperature")]
Margin = Annotated[Probability | None, Meta(description="probability of the label, less the next one's")]
Entropy = Annotated[
    Probability | None, Meta(description="of the probabilities, as a share of the most that they could have")
]
Novelty = Annotated[
    Annotated[float, Meta(ge=0, le=1e6)] | None,
    Meta(description="how unlike all that the model was trained on; above 1 it has hardly seen the like"),
]

Rejection = Literal[
    "malformed-message",
    "unsupported-version",
    "unsupported-image",
    "corrupt-image",
    "too-large",
    "too-many-pixels",
    "expired",
]


class Message(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="v", tag=VERSION):
    """What all messages share: the field `v`, always written, and the rules above."""


class Photo(Message, frozen=True, kw_only=True):
    """What a camera took. A bare JPEG or PNG on the topic is a Photo too."""

    photo_id: PhotoId
    node: Name
    device: Name
    image: Image
    taken_at_ms: Milliseconds | None = None
    sequence: Count = 0
    historical: Annotated[bool, Meta(description="sent late, after an outage")] = False
    expires_at_ms: Annotated[Milliseconds | None, Meta(description="not worth an answer after this")] = None


class Result(Message, frozen=True, kw_only=True):
    """The answer to a Photo, and the acknowledgement of it.

    `ok` and `rejected` are final. `deferred` says why there is no answer yet; the photo is kept and a
    final Result follows.
    """

    photo_id: PhotoId
    node: Name
    device: Name
    status: Literal["ok", "rejected", "deferred"]
    label: Label | None = None
    confidence: Probability | None = None
    scores: Scores | None = None
    raw_confidence: Raw = None
    margin: Margin = None
    entropy: Entropy = None
    novelty: Novelty = None
    model: ModelName | None = None
    model_version: ModelVersion | None = None
    code: Annotated[Rejection | None, Meta(description="why it was rejected")] = None
    reason: Annotated[Text | None, Meta(description="the same in words")] = None
    harvest: Annotated[Text | None, Meta(description="lane it was harvested in, or why it was not")] = None
    taken_at_ms: Milliseconds | None = None
    answered_at_ms: Milliseconds
    edge_ms: Annotated[Duration | None, Meta(description="from arrival at the edge to this answer")] = None
    historical: bool = False


class Sample(Message, frozen=True, kw_only=True):
    """A harvested photo with its context, shrunk to the training size."""

    photo_id: PhotoId
    node: Name
    device: Name
    image: Image
    width: Annotated[int, Meta(ge=1, le=65535)]
    height: Annotated[int, Meta(ge=1, le=65535)]
    dhash: DHash
    lane: Annotated[str, Meta(pattern=r"^[a-z-]{1,32}$(?!\n)")]
    label: Label
    confidence: Probability
    scores: Scores
    raw_confidence: Raw = None
    margin: Margin = None
    entropy: Entropy = None
    novelty: Novelty = None
    inclusion: Annotated[
        Probability | None, Meta(description="with which a photo is drawn for the lane audit; null in others")
    ] = None
    model: ModelName
    model_version: ModelVersion
    embedding: Annotated[bytes, Meta(max_length=65536, description="float32, little endian")] = b""
    taken_at_ms: Milliseconds | None = None
    harvested_at_ms: Milliseconds


class Receipt(Message, frozen=True, kw_only=True):
    """The answer to a Sample: it is on the cloud's disk, or never will be."""

    photo_id: PhotoId
    node: Name
    status: Literal["stored", "duplicate", "refused"]
    reason: Text | None = None
    received_at_ms: Milliseconds


class Feedback(Message, frozen=True, kw_only=True):
    """A true label for a photo, from a person or a device that knows it."""

    photo_id: PhotoId
    node: Name
    device: Name
    label: Annotated[
        Label, Meta(description=f"name of a class, or `{NEITHER}` if the photo shows none of them")
    ]
    by: Annotated[str, Meta(max_length=128, description="who says so")] = "unknown"
    at_ms: Annotated[Milliseconds | None, Meta(description="when it was said; arrival if absent")] = None


class Command(Message, frozen=True, kw_only=True):
    """A wish to a device: take a photo now, or change the interval."""

    node: Name
    device: Name
    action: Literal["capture", "set-interval"]
    interval_s: Annotated[Seconds | None, Meta(description="for set-interval; 0 stops the timer")] = None


class Caps(Struct, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """The most that may be harvested in a minute, an hour and a day, in samples and in bytes."""

    per_minute: Count = 120
    per_hour: Count = 2_000
    per_day: Count = 10_000
    bytes_per_minute: Count = 8_000_000
    bytes_per_hour: Count = 120_000_000
    bytes_per_day: Count = 500_000_000


class HarvestRules(Struct, frozen=True, kw_only=True):
    """Which photos are worth sending to the cloud."""

    auto_confidence: Annotated[
        Probability, Meta(description="at or above: lane auto, the model's own label is credible")
    ] = 0.9
    hard_confidence: Annotated[Probability, Meta(description="deprecated and ignored: see hard_entropy")] = (
        0.75
    )
    auto: Annotated[bool, Meta(description="whether the lane auto is on")] = True
    auto_by_class: Annotated[
        dict[Label, Probability], Meta(max_length=1024, description="auto_confidence for these classes")
    ] = {}
    hard_margin: Annotated[Probability, Meta(description="deprecated and ignored: see hard_entropy")] = 0.2
    uncertain_above: Annotated[
        Probability,
        Meta(
            description="uncertainty above: lane hard; it is the normalised entropy of the scores, or of the "
            "two most probable classes alone where that is larger"
        ),
    ] = field(name="hard_entropy", default=0.5)
    hard_novelty: Annotated[float, Meta(ge=0, le=1e6, description="novelty above: lane hard")] = 1.0
    audit_share: Annotated[
        Probability, Meta(description="share of all photos that goes to lane audit, whatever the model says")
    ] = 0.02
    quota_per_day: Annotated[
        Count, Meta(description="samples a day of one class in the lanes auto and hard, each")
    ] = 5_000
    quotas: Annotated[
        dict[Label, Count], Meta(max_length=1024, description="quota_per_day for these classes")
    ] = {}
    near_duplicate_bits: Annotated[
        int, Meta(ge=0, le=64, description="dHash distance up to which two photos are the same view")
    ] = 6
    near_duplicate_s: Annotated[
        Seconds, Meta(description="how long a device's view is remembered; 0 turns the check off")
    ] = 86_400.0
    caps: Caps = Caps()


class Policy(Message, frozen=True, kw_only=True):
    """The harvest rules that an edge node is to follow from now on. Retained."""

    node: Name
    harvest: HarvestRules = HarvestRules()
    issued_at_ms: Milliseconds | None = None


class Release(Message, frozen=True, kw_only=True):
    """The model version that an edge node is to serve. Retained; the bytes travel by reference."""

    node: Name
    model: ModelName
    version: ModelVersion
    url: Annotated[str, Meta(min_length=1, max_length=2048, description="file, http, https or s3")]
    sha256: Sha256
    size_bytes: Annotated[int, Meta(ge=1, le=2**40)]
    classes: Annotated[list[Label], Meta(min_length=2, max_length=1024)]
    metrics: Annotated[dict[str, float], Meta(max_length=64)] = {}
    temperature: Annotated[
        float, Meta(ge=0.01, le=100, description="divides the logits inside the model; calibrates it")
    ] = 1.0
    stage: Annotated[
        Stage,
        Meta(description="shadow: compared, not returned; canary: for some devices; all: for every one"),
    ] = "all"
    share: Annotated[Probability, Meta(description="for canary: of the devices, by a hash of the name")] = 1.0
    baseline: Annotated[
        ModelVersion | None,
        Meta(description="for shadow and canary: the version that serves the other devices; else null"),
    ] = field(default=None, name="beside")
    released_at_ms: Milliseconds
    signature: (
        Annotated[
            str,
            Meta(max_length=1024, description="Ed25519 in hexadecimal"),
        ]
        | None
    ) = None


class ServedModel(Struct, frozen=True, kw_only=True):
    """A model as its server reports it."""

    name: ModelName
    version: ModelVersion | None = None
    state: Literal["available", "loading", "failed", "absent"]
    reason: Text | None = None


class VersionStats(Struct, frozen=True, kw_only=True):
    """What a version did so far: in a trial, or since it came into service."""

    version: ModelVersion
    answered: Annotated[Count, Meta(description="photos that it classified")] = 0
    failed: Annotated[Count, Meta(description="calls that it failed")] = 0
    p95_ms: Annotated[
        Duration | None, Meta(description="95th percentile of its latest calls, of 20 or more")
    ] = None


class CanaryReport(Struct, frozen=True, kw_only=True):
    """A version on trial beside the one in service, as an edge node sees it."""

    stage: Stage
    champion: VersionStats
    challenger: VersionStats
    compared: Annotated[Count, Meta(description="photos that both classified")] = 0
    disagreed: Annotated[Count, Meta(description="of these, photos to which they gave different labels")] = 0
    since_ms: Milliseconds


class Status(Message, frozen=True, kw_only=True):
    """How a component is. Retained; `offline` is also its last will."""

    node: Name
    name: Name
    state: Literal["online", "degraded", "offline"]
    at_ms: Milliseconds
    since_ms: Annotated[Milliseconds, Meta(description="start of the component")]
    software: Annotated[str, Meta(max_length=64, description="its version")]
    run_id: Annotated[str, Meta(max_length=32, description="drawn at each start")]
    reason: Text | None = None
    model: ServedModel | None = None
    canary: CanaryReport | None = field(default=None, name="trial")
    serving: Annotated[
        VersionStats | None, Meta(description="what the version in service did, outside of a trial")
    ] = None
    counters: Annotated[dict[str, Count], Meta(max_length=256)] = {}


class Event(Message, frozen=True, kw_only=True):
    """Something that happened, for people and for other components."""

    node: Name
    name: Name
    event: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9.-]{0,63}$(?!\n)", description="e.g. model.available")]
    at_ms: Milliseconds
    reason: Text | None = None
    facts: Annotated[dict[str, str | int | float | bool], Meta(max_length=64)] = {}
