"""Photos are validated before they are decoded."""

import io

from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge.inference.validation import PhotoLimits, Rejected, validate
from schemas.codec import content_id, to_json
from schemas.messages import Photo
from tests.conftest import jpeg
from tests.nodes import NODE, enveloped, photo_id

LIMITS = PhotoLimits(max_photo_bytes=100_000, max_pixels=1_000_000)
NAMES = {"node": NODE, "device": "pi-1"}
NOW = 1_000_000


def checked(payload: bytes) -> tuple[str, str]:
    """Return `ok` or the rejection code, and the photo id."""
    found = validate(payload, NAMES, LIMITS, NOW)
    return (found.code, found.photo.photo_id) if isinstance(found, Rejected) else ("ok", found.photo_id)


def png(width: int, height: int) -> bytes:
    out = io.BytesIO()
    Image.new("1", (width, height)).save(out, "PNG")
    return out.getvalue()


def test_a_valid_photo_is_returned_unchanged():
    """As msgpack, as JSON, and as a bare image, whose id is its hash."""
    photo = Photo(photo_id=photo_id(1), node=NODE, device="pi-1", image=jpeg(1), sequence=7)
    assert validate(enveloped(1, jpeg(1), sequence=7), NAMES, LIMITS, NOW) == photo
    assert validate(to_json(photo), NAMES, LIMITS, NOW) == photo
    bare = validate(jpeg(1), NAMES, LIMITS, NOW)
    assert isinstance(bare, Photo)
    assert (bare.photo_id, bare.image) == (content_id(jpeg(1)), jpeg(1))


def test_each_limit_is_inclusive_and_has_its_code():
    """Bytes, pixels and expiry; the rejection has the photo's own id."""
    exact = jpeg(1) + bytes(LIMITS.max_photo_bytes - len(jpeg(1)))
    assert checked(enveloped(1, exact)) == ("ok", photo_id(1))
    assert checked(enveloped(1, exact + b"\0")) == ("too-large", photo_id(1))
    assert checked(enveloped(1, png(1000, 1000))) == ("ok", photo_id(1))
    assert checked(enveloped(1, png(1001, 1000))) == ("too-many-pixels", photo_id(1))
    assert checked(enveloped(1, jpeg(1), expires_at_ms=NOW)) == ("ok", photo_id(1))
    assert checked(enveloped(1, jpeg(1), expires_at_ms=NOW - 1)) == ("expired", photo_id(1))


def test_a_rejection_keeps_the_fields_that_could_be_read():
    """Device, id and time of the photo are in the rejection as far as they are known."""
    rejected = validate(enveloped(1, b"text", taken_at_ms=5), NAMES, LIMITS, NOW)
    assert isinstance(rejected, Rejected)
    assert (rejected.code, rejected.photo.taken_at_ms) == ("unsupported-image", 5)
    unread = validate(b"hello", NAMES, LIMITS, NOW)
    assert isinstance(unread, Rejected)
    assert unread.photo == Photo(photo_id=content_id(b"hello"), image=b"", **NAMES)


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=100).map(lambda tail: jpeg(1)[:60] + tail)))
def test_any_bytes_are_a_photo_or_rejected(payload):
    """No payload raises."""
    assert isinstance(validate(payload, NAMES, LIMITS, NOW), Photo | Rejected)
