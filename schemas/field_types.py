"""The types of the messages' fields: their bounds, units and descriptions in the published schema."""

from typing import Annotated, Literal

from msgspec import Meta

Name = Annotated[
    str,
    Meta(
        # `$(?!\n)`: a plain `$` also matches before a line break at the end.
        pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$(?!\n)",
        description="DNS label: 1 to 63 lower-case letters, digits and inner hyphens",
    ),
]
DevicePattern = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9*?]([a-z0-9*?-]{0,61}[a-z0-9*?])?$(?!\n)",
        description="name of a device, in which `*` stands for any characters and `?` for one",
    ),
]
GroupChoice = Annotated[
    str,
    Meta(
        pattern=r"^(\*|[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)$(?!\n)",
        description="name of a group; `*`: each device is a group of its own, called NODE.DEVICE",
    ),
]
Group = Annotated[
    str,
    Meta(
        pattern=r"^([a-z0-9]([a-z0-9.-]{0,125}[a-z0-9])?)?$(?!\n)",
        description="group of the device by the policy, whose head answers if the version has one for it; "
        "empty: the shared head answers",
    ),
]
Variant = Annotated[
    str,
    Meta(
        pattern=r"^([a-z0-9][a-z0-9._-]{0,63})?$(?!\n)",
        description="LiteRT variant of the model that classified, such as `float32` or `int8`; empty: "
        "its graph did, or the model server does not tell",
    ),
]
PhotoId = Annotated[
    str,
    Meta(
        pattern=r"^[0-9a-f]{32}$(?!\n)",
        description="id of the photo: 128 bits as 32 hexadecimal digits; of a bare image its BLAKE2b",
    ),
]
OrderId = Annotated[
    str,
    Meta(
        pattern=r"^[0-9a-f]{32}$(?!\n)",
        description="random id, 32 hexadecimal digits: an order is carried out once",
    ),
]
# Integers end at 2**53, up to which readers whose numbers are doubles, such as JavaScript, are exact. It is
# one above JavaScript's largest "safe" integer: 2**53 + 1 is read as 2**53 too. No time or count comes
# near it, and a lower bound would refuse what version 1 of the contract allows: it stays (guarantee G7).
# Upper bounds of floats exclude infinity, which JSON cannot express.
EPOCH_MS = "milliseconds since 1970, UTC"
"""Unit of every time, as descriptions of fields state it."""
Milliseconds = Annotated[int, Meta(ge=0, le=2**53, description=EPOCH_MS)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
Duration = Annotated[float, Meta(ge=0, le=1e12, description="duration in milliseconds")]
Probability = Annotated[float, Meta(ge=0, le=1)]
Share = Annotated[float, Meta(ge=0, le=1)]
Label = Annotated[str, Meta(min_length=1, max_length=128, description="name of a class")]
MAX_TEXT_CHARS = 1024
"""Most characters in a reason or other free text of a message."""
Text = Annotated[str, Meta(max_length=MAX_TEXT_CHARS)]
Image = Annotated[bytes, Meta(min_length=1, description="encoded JPEG or PNG")]
# 1024 entries are also the limit of the codec for any map.
Scores = Annotated[
    dict[Label, Probability], Meta(max_length=1024, description="probability of each class, 0 to 1")
]
ModelName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$(?!\n)")]
ModelVersion = Annotated[int, Meta(ge=1, le=2**53)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
DHash = Annotated[
    str, Meta(pattern=r"^[0-9a-f]{16}$(?!\n)", description="64-bit difference hash of the image")
]
Stage = Literal["shadow", "canary", "all"]
TRACEPARENT = r"^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$(?!\n)"
Trace = Annotated[
    Annotated[str, Meta(pattern=TRACEPARENT)] | None,
    Meta(
        description="`traceparent` of W3C Trace Context, version 00: the trace that this message belongs to; "
        "null: to none. Readers take a malformed one for null"
    ),
]

# Confidence measures of one prediction, used by Result and Sample.
Raw = Annotated[
    Probability | None,
    Meta(description="probability of `label` before temperature scaling; null if not computed"),
]
Margin = Annotated[
    Probability | None,
    Meta(description="probability of `label` minus that of the runner-up; null if not computed"),
]
Entropy = Annotated[
    Probability | None,
    Meta(
        description="entropy of the class probabilities divided by its maximum, log K: 0 certain, 1 uniform; "
        "null if not computed"
    ),
]
Novelty = Annotated[
    Annotated[float, Meta(ge=0, le=1e6)] | None,
    Meta(
        description="scaled distance to the nearest training embedding; above 1 the photo is out of "
        "distribution; null if the model cannot tell"
    ),
]

# An enumeration in the published schema: another code would break earlier readers, so it needs a new version.
Rejection = Literal[
    "malformed-message",
    "unsupported-version",
    "unsupported-image",
    "corrupt-image",
    "too-large",
    "too-many-pixels",
    "expired",
]
