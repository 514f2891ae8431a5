"""What a policy sets: the thresholds, quotas and caps of the harvest, and the vote of a device's answers."""

from typing import Annotated

from msgspec import Meta, Struct, field

from schemas.field_types import Count, Label, Probability, Seconds


class Caps(Struct, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """Most samples, and most bytes of them, that a node harvests per minute, hour and day."""

    per_minute: Annotated[Count, Meta(description="samples")] = 120
    per_hour: Annotated[Count, Meta(description="samples")] = 2_000
    per_day: Annotated[Count, Meta(description="samples")] = 10_000
    bytes_per_minute: Annotated[Count, Meta(description="bytes")] = 8_000_000
    bytes_per_hour: Annotated[Count, Meta(description="bytes")] = 120_000_000
    bytes_per_day: Annotated[Count, Meta(description="bytes")] = 500_000_000


class HarvestRules(Struct, frozen=True, kw_only=True):
    """Thresholds, quotas and caps of the harvest: which photos are sent to the cloud, and their lane."""

    auto_confidence: Annotated[
        Probability,
        Meta(description="a confidence of at least this goes to lane auto, with the model's label"),
    ] = 0.9
    # Deprecated fields stay in the contract: a field is not removed within a version.
    hard_confidence: Annotated[
        Probability, Meta(description="deprecated and ignored: see `hard_entropy`")
    ] = 0.75
    auto: Annotated[bool, Meta(description="whether the lane auto is used")] = True
    auto_by_class: Annotated[
        dict[Label, Probability],
        Meta(max_length=1024, description="overrides of `auto_confidence` by class"),
    ] = {}
    hard_margin: Annotated[Probability, Meta(description="deprecated and ignored: see `hard_entropy`")] = 0.2
    uncertain_above: Annotated[
        Probability,
        Meta(
            description="a greater uncertainty goes to lane hard: the normalised entropy of scores, or of "
            "the two most probable classes alone if that is larger"
        ),
    ] = field(name="hard_entropy", default=0.5)
    hard_novelty: Annotated[float, Meta(ge=0, le=1e6, description="a greater novelty goes to lane hard")] = (
        1.0
    )
    audit_share: Annotated[
        Probability, Meta(description="share of all photos drawn at random for lane audit, 0 to 1")
    ] = 0.02
    audits_per_day: Annotated[Count, Meta(description="most samples in lane audit per day")] = 2_000
    audits_per_device: Annotated[
        Count, Meta(description="of these, samples of one device; neither counts other lanes")
    ] = 500
    usual_audit_share: Annotated[
        Probability | None,
        Meta(description="`audit_share` before a drift alarm raised it, which returns; null outside of one"),
    ] = None
    quota_per_day: Annotated[
        Count, Meta(description="most samples of one class per day, separately in lanes auto and hard")
    ] = 5_000
    quotas: Annotated[
        dict[Label, Count],
        Meta(max_length=1024, description="overrides of `quota_per_day` by class"),
    ] = {}
    near_duplicate_bits: Annotated[
        int,
        Meta(ge=0, le=64, description="dHash distance in bits up to which two photos are near-duplicates"),
    ] = 6
    near_duplicate_s: Annotated[
        Seconds,
        Meta(description="seconds to skip near-duplicates of the same device; 0 turns this off"),
    ] = 86_400.0
    caps: Caps = Caps()


MAX_FRAMES = 64
"""Most answers of a device that may vote."""
Frames = Annotated[int, Meta(ge=1, le=MAX_FRAMES)]


class Vote(Struct, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """How many of a device's latest answers must agree before one counts, see `confirmed` of a Result."""

    frames: Annotated[Frames, Meta(description="answers that vote, the newest included; 1: no vote")] = 1
    agree: Annotated[Frames, Meta(description="of these, answers with one label; at most `frames`")] = 1
