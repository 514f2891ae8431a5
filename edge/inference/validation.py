"""The check of a photo before it costs anything: a plain function of its bytes."""

from dataclasses import dataclass

from schemas.codec import content_id, decode
from schemas.errors import CodecError
from schemas.image import ImageError, read_header
from schemas.messages import Photo, Rejection
from schemas.topics import PHOTO


@dataclass(frozen=True, slots=True)
class PhotoLimits:
    """What a photo may measure at most: encoded bytes, and pixels as its header says."""

    max_photo_bytes: int
    max_pixels: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """A photo that gets no classification, and why.

    Args:
        photo: As far as it could be read; its id is that of the payload's bytes if it has no readable one.
        code: Rejection code of the contract.
        reason: The same in words.
    """

    photo: Photo
    code: Rejection
    reason: str


def validate(payload: bytes, names: dict[str, str], limits: PhotoLimits, now_ms: int) -> Photo | Rejected:
    """Return the photo in a payload, or why it is rejected. Decodes no pixel.

    Args:
        payload: Any bytes at all.
        names: `node` and `device` of the topic that it came on.
        limits: Of this edge.
        now_ms: For expiry, UTC milliseconds since 1970.
    """
    try:
        photo = decode(PHOTO, payload, names)
    except CodecError as error:
        photo_id = error.photo_id or content_id(payload)
        unread = Photo(photo_id=photo_id, node=names["node"], device=names["device"], image=b"")
        return Rejected(unread, error.code, str(error))
    size_bytes = len(photo.image)
    if size_bytes > limits.max_photo_bytes:
        reason = f"expected at most {limits.max_photo_bytes} bytes, got {size_bytes}"
        return Rejected(photo, "too-large", reason)
    if expired(photo, now_ms):
        return Rejected(photo, "expired", f"not worth an answer after {photo.expires_at_ms}")
    try:
        header = read_header(photo.image)
    except ImageError as error:
        return Rejected(photo, error.code, str(error))
    if header.pixels > limits.max_pixels:
        reason = f"expected at most {limits.max_pixels} pixels, got {header.width} x {header.height}"
        return Rejected(photo, "too-many-pixels", reason)
    return photo


def expired(photo: Photo, now_ms: int) -> bool:
    """Tell whether an answer would come too late to be worth anything."""
    return photo.expires_at_ms is not None and now_ms > photo.expires_at_ms
