"""Decide what to do with a photo whose id was answered before: plain functions."""

from typing import Literal

from edge.inference.validation import Rejected
from edge.scheduling.in_flight import InFlightPhoto
from schemas.codec import content_id
from schemas.messages import Photo, Result

RESEND_WINDOW_MS = 120_000
"""How long a bare image that arrives again is a repetition, in milliseconds: senders repeat in a minute."""

Repetition = Literal["answer again", "ask again", "other picture"]


def judge(
    entry: InFlightPhoto, recorded: Result, picture: str | None, served: frozenset[int], now_ms: int
) -> Repetition:
    """Return whether to repeat the recorded result, to ask again, or to refuse the photo.

    A photo with its own id is answered once. A bare image has the id of its bytes, and the same file sent
    later is a new question, answered by the version in service at that time.

    Args:
        entry: The photo that arrived.
        recorded: The result under its id.
        picture: Digest of the image that the result is about; None if unknown.
        served: Versions that may answer now; empty if the model server is away.
        now_ms: By the edge's clock, milliseconds since 1970.
    """
    if picture is not None and picture != content_id(entry.photo.image):
        # The id of a bare image is right: an earlier version of the edge had another normal form of odd
        # pictures, or somebody else has used the id.
        return "ask again" if entry.bare else "other picture"
    if not entry.bare:
        return "answer again"
    age_ms = now_ms - (recorded.answered_at_ms or 0)
    is_recent = 0 <= age_ms <= RESEND_WINDOW_MS
    is_current = recorded.model_version is None or recorded.model_version in served
    return "answer again" if is_recent and is_current else "ask again"


def id_reused(photo: Photo) -> Rejected:
    """Return the rejection of a photo with the id of another picture."""
    reason = f"photo id {photo.photo_id} was used for another picture: draw a new id for each photo"
    return Rejected(photo, "malformed-message", reason)
