"""Validate a photo before it costs anything: a plain function of its bytes."""

from dataclasses import dataclass

from schemas.codec import content_id, decode
from schemas.errors import CodecError
from schemas.image import ImageError, read_header
from schemas.messages import Photo, Rejection
from schemas.topics import PHOTO


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


def validate(payload: bytes, names: dict[str, str], limits: PhotoLimits, now_ms: int) -> Photo | Rejected:
    """Return the photo in a payload, or why it is rejected. Decodes no pixels.

    Args:
        payload: Any bytes.
        names: `node` and `device` of the topic that it came on.
        limits: Of this edge.
        now_ms: For expiry, UTC milliseconds since 1970.
    """
    try:
        photo = decode(PHOTO, payload, names)
    except CodecError as error:
        photo_id = error.photo_id or content_id(payload)  # every rejection needs an id that its sender knows
        unread = Photo(photo_id=photo_id, node=names["node"], device=names["device"], image=b"")
        return Rejected(unread, error.code, str(error))
    size_bytes = len(photo.image)
    if size_bytes > limits.max_photo_bytes:
        reason = f"expected at most {limits.max_photo_bytes} bytes, got {size_bytes}"
        return Rejected(photo, "too-large", reason)
    if is_expired(photo, now_ms):
        return expired(photo)
    try:
        header = read_header(photo.image)
    except ImageError as error:
        return Rejected(photo, error.code, str(error))
    # By the header: a few hundred bytes can declare 900 million pixels, and no decoder may see them.
    if header.pixels > limits.max_pixels:
        reason = f"expected at most {limits.max_pixels} pixels, got {header.width} x {header.height}"
        return Rejected(photo, "too-many-pixels", reason)
    return photo


def is_expired(photo: Photo, now_ms: int) -> bool:
    """Return True if the sender no longer wants an answer."""
    return photo.expires_at_ms is not None and now_ms > photo.expires_at_ms


def expired(photo: Photo) -> Rejected:
    """Return the rejection of an expired photo."""
    return Rejected(photo, "expired", f"expired at {photo.expires_at_ms} (ms since 1970)")
