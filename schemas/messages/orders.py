"""What devices, nodes and rollouts are to do: commands, policies, releases, forgetting, steering."""

from typing import Annotated, Literal

from msgspec import Meta, field

from schemas.field_types import (
    EPOCH_MS,
    DevicePattern,
    Group,
    GroupChoice,
    Label,
    Milliseconds,
    ModelName,
    ModelVersion,
    Name,
    OrderId,
    PhotoId,
    Probability,
    Seconds,
    Sha256,
    Stage,
    Text,
)
from schemas.messages.base import Message
from schemas.policy_rules import HarvestRules, Vote

MAX_FORGET_IDS = 5000
"""Most photos that one message names to be forgotten."""


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
