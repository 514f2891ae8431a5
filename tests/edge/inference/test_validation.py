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


def said(payload: bytes) -> tuple[str, str]:
    """Return the verdict and the photo id."""
    found = validate(payload, NAMES, LIMITS, NOW)
    return (found.code, found.photo.photo_id) if isinstance(found, Rejected) else ("ok", found.photo_id)


def png(width: int, height: int) -> bytes:
    out = io.BytesIO()
    Image.new("1", (width, height)).save(out, "PNG")
    return out.getvalue()


def test_a_photo_passes_as_it_is():
    """A good photo comes through unchanged: msgpack, JSON, and bare bytes, whose id is their hash."""
    photo = Photo(photo_id=photo_id(1), node=NODE, device="pi-1", image=jpeg(1), sequence=7)
    assert validate(enveloped(1, jpeg(1), sequence=7), NAMES, LIMITS, NOW) == photo
    assert validate(to_json(photo), NAMES, LIMITS, NOW) == photo
    bare = validate(jpeg(1), NAMES, LIMITS, NOW)
    assert isinstance(bare, Photo)
    assert (bare.photo_id, bare.image) == (content_id(jpeg(1)), jpeg(1))


def test_each_limit_has_its_code_and_the_last_that_passes_passes():
    """Bytes, pixels and time are checked at their edge, and the rejection carries the photo's own id."""
    exact = jpeg(1) + bytes(LIMITS.max_photo_bytes - len(jpeg(1)))
    assert said(enveloped(1, exact)) == ("ok", photo_id(1))
    assert said(enveloped(1, exact + b"\0")) == ("too-large", photo_id(1))
    assert said(enveloped(1, png(1000, 1000))) == ("ok", photo_id(1))
    assert said(enveloped(1, png(1001, 1000))) == ("too-many-pixels", photo_id(1))
    assert said(enveloped(1, jpeg(1), expires_at_ms=NOW)) == ("ok", photo_id(1))
    assert said(enveloped(1, jpeg(1), expires_at_ms=NOW - 1)) == ("expired", photo_id(1))


def test_a_rejection_keeps_what_could_be_read():
    """Who sent it, its id and its time go back with a rejection as far as they are known."""
    rejected = validate(enveloped(1, b"text", taken_at_ms=5), NAMES, LIMITS, NOW)
    assert isinstance(rejected, Rejected)
    assert (rejected.code, rejected.photo.taken_at_ms) == ("unsupported-image", 5)
    unread = validate(b"hello", NAMES, LIMITS, NOW)
    assert isinstance(unread, Rejected)
    assert unread.photo == Photo(photo_id=content_id(b"hello"), image=b"", **NAMES)


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=100).map(lambda tail: jpeg(1)[:60] + tail)))
def test_any_bytes_at_all_are_a_photo_or_rejected(payload):
    """Nothing that can be published raises."""
    assert isinstance(validate(payload, NAMES, LIMITS, NOW), Photo | Rejected)
