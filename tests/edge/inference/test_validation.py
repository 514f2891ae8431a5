"""Photos are validated before they are decoded."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge.inference.validation import PhotoLimits, Rejected, validate
from edge.scheduling.clocks import DeviceClocks
from schemas.codec import content_id, to_json
from schemas.image import normal_form
from schemas.messages import Photo
from tests.conftest import jpeg
from tests.nodes import NODE, enveloped, photo_id
from tests.pictures.odd import encoded, scene, segments

LIMITS = PhotoLimits(max_photo_bytes=100_000, max_pixels=1_000_000)
NAMES = {"node": NODE, "device": "pi-1"}
NOW = 1_000_000
TODAY = 1_796_000_000_000


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


@pytest.mark.parametrize(
    ("times", "words"),
    [
        ({"taken_at_ms": TODAY // 1000, "expires_at_ms": TODAY // 1000 + 30}, "it looks like seconds"),
        ({"expires_at_ms": TODAY - 60_000}, "with taken_at_ms"),
    ],
)
def test_the_reason_of_an_expiry_says_what_to_change(times, words):
    """A unit that is not milliseconds, and a clock of which nothing is known."""
    clocks = DeviceClocks()
    rejected = validate(enveloped(1, jpeg(1), **times), NAMES, LIMITS, TODAY, clocks)
    if not isinstance(rejected, Rejected):  # as long as the offset of the clock explains it
        rejected = validate(enveloped(2, jpeg(1), **times), NAMES, LIMITS, TODAY + 1000, clocks)
    assert isinstance(rejected, Rejected)
    assert (rejected.code, words in rejected.reason) == ("expired", True)


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


@pytest.mark.parametrize("cut", [jpeg(1)[:-2], jpeg(1)[:-2] + bytes(512)])
def test_a_photo_without_end_marker_is_damaged_and_whole(cut):
    """It is classified by its normal form, and says why it is damaged; its id is that of the bytes sent."""
    taken = validate(cut, NAMES, LIMITS, NOW)
    assert isinstance(taken, Photo)
    assert (taken.image, taken.photo_id) == (jpeg(1), content_id(cut))
    assert "no end marker" in taken.damaged


def test_stray_bytes_are_no_damage():
    """What decoders skip is left out."""
    taken = validate(enveloped(1, jpeg(1)[:2] + b"\x00\x00" + jpeg(1)[2:]), NAMES, LIMITS, NOW)
    assert (taken.image, taken.damaged, taken.photo_id) == (normal_form(jpeg(1)), None, photo_id(1))


@pytest.mark.parametrize(
    ("payload", "name"),
    [(b"\x00\x00\x00\x18ftypheic" + bytes(9), "HEIC"), (b"RIFF\x09\x00\x00\x00WEBPVP8 ", "WebP")],
)
def test_a_bare_file_of_another_format_is_rejected_by_its_name(payload, name):
    """Bare or in an envelope: unsupported-image, with what to do."""
    for message in (payload, enveloped(1, payload)):
        rejected = validate(message, NAMES, LIMITS, NOW)
        assert (rejected.code, name in rejected.reason) == ("unsupported-image", True)
        assert "convert it to JPEG" in rejected.reason


def test_scans_are_limited_before_decoding():
    """A small file of thousands of scans would occupy the model server for minutes."""
    image = encoded(scene((16, 16), "L"), progressive=True)
    many = image[:-2] + image[segments(image)[-1][0] : -2] * 300 + b"\xff\xd9"
    assert checked(enveloped(1, many)) == ("unsupported-image", photo_id(1))
