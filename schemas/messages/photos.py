"""Messages about one photo: the photo, its result, its sample with the receipt, and feedback."""

from typing import Annotated, Literal

from msgspec import Meta

from schemas.class_names import NEITHER
from schemas.field_types import (
    EPOCH_MS,
    Count,
    DHash,
    Duration,
    Entropy,
    Group,
    Image,
    Label,
    Margin,
    Milliseconds,
    ModelName,
    ModelVersion,
    Name,
    Novelty,
    PhotoId,
    Probability,
    Raw,
    Rejection,
    Scores,
    Seconds,
    Share,
    Text,
    Trace,
    Variant,
)
from schemas.lanes import LANES
from schemas.messages.base import Message


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
