"""Validate a photo before it costs anything: a plain function of its bytes."""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from bus.diagnosis.time_units import wrong_unit
from edge.scheduling.clocks import DeviceClocks, describe, is_expired
from schemas.codec import content_id, decode
from schemas.errors import CodecError, TopicError
from schemas.field_types import Rejection
from schemas.image import ImageError, ImageFacts, ImageLimits, inspect_image, normal_form
from schemas.messages import Photo
from schemas.topics import PHOTO, check_device_name


@dataclass(frozen=True, slots=True)
class PhotoLimits:
    """Largest photo that is classified: encoded bytes, and pixels by its header."""

    max_photo_bytes: int
    max_pixels: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """A photo that is not classified, and why.

    Args:
        photo: As far as it could be read; without a readable id it has that of the payload's bytes.
        code: Rejection code of the contract.
        reason: The same in words.
    """

    photo: Photo
    code: Rejection
    reason: str


def validate(
    payload: bytes,
    names: dict[str, str],
    limits: PhotoLimits,
    now_ms: int,
    clocks: DeviceClocks | None = None,
    *,
    note_facts: Callable[[ImageFacts], None] = lambda _: None,
) -> Photo | Rejected:
    """Return the photo in a payload, or why it is rejected. Decodes no pixels.

    A photo that decoders could read differently has its normal form in the place of the image; `damaged` is
    set if the file shows that pixels are missing.

    Args:
        payload: Any bytes.
        names: `node` and `device` of the topic that it came on.
        limits: Of this edge.
        now_ms: Time of arrival, UTC milliseconds since 1970.
        clocks: Of the devices, for expiry; None if they are not known.
        note_facts: Called with the facts of an acceptable image.
    """
    try:
        photo = decode(PHOTO, payload, names)
    except CodecError as error:
        # Every rejection needs an id that its sender knows or can compute.
        photo_id = error.photo_id or content_id(payload)
        unread = Photo(photo_id=photo_id, node=names["node"], device=names["device"], image=b"")
        digest = (
            "" if error.photo_id else " (photo_id is the BLAKE2b of the message: its own was not readable)"
        )
        return Rejected(unread, error.code, f"{error}{digest}")
    try:
        check_device_name(photo.device)
    except TopicError as error:
        return Rejected(photo, "malformed-message", str(error))
    size_bytes = len(photo.image)
    if size_bytes > limits.max_photo_bytes:
        reason = f"expected at most {limits.max_photo_bytes} bytes, got {size_bytes}"
        return Rejected(photo, "too-large", reason)
    if clocks is not None:
        clocks.observe(photo, now_ms)
    if photo.expires_at_ms is not None:
        offset_ms = 0 if clocks is None else clocks.offset_ms(photo, now_ms)
        if is_expired(photo, now_ms, offset_ms):
            return expired(photo, now_ms, offset_ms)
    try:
        image_limits = ImageLimits.for_pixels(limits.max_pixels)
        facts = inspect_image(photo.image, image_limits)
        note_facts(facts)
        return _decodable(photo, facts, image_limits)
    except ImageError as error:
        return Rejected(photo, error.code, str(error))


def _decodable(photo: Photo, facts: ImageFacts, limits: ImageLimits) -> Photo:
    if facts.exact and facts.damaged is None:
        return photo
    image = photo.image if facts.exact else normal_form(photo.image, limits)
    return msgspec.structs.replace(photo, image=image, damaged=photo.damaged or facts.damaged)


def expired(photo: Photo, now_ms: int, offset_ms: int) -> Rejected:
    """Return the rejection of an expired photo.

    Args:
        photo: Has a time of expiry.
        now_ms: By the edge's clock, milliseconds since 1970.
        offset_ms: Of the device's clock.
    """
    expires_ms = photo.expires_at_ms or 0
    late_s = (now_ms - offset_ms - expires_ms) / 1000
    clock = _by_which_clock(photo, now_ms, offset_ms)
    return Rejected(photo, "expired", f"expired {late_s:.1f} s ago, at {expires_ms} ms since 1970; {clock}")


def _by_which_clock(photo: Photo, now_ms: int, offset_ms: int) -> str:
    if (unit := wrong_unit(photo.expires_at_ms or 0, now_ms)) is not None:
        return f"it looks like {unit}, and times are in milliseconds"
    if photo.taken_at_ms is None:
        return "by the edge's clock; with taken_at_ms, the device's clock need not be right"
    return describe(offset_ms) or "by the edge's clock"
