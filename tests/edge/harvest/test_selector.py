"""The rules apply in order: audit, near-duplicate, lane, quota, caps."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageStat

from edge.harvest.history import HarvestedSample
from edge.harvest.lanes import drawn_for_audit
from edge.harvest.selector import Selector
from edge.harvest.shrinking.image import dhash, distance, shrink
from edge.serving.prediction import Prediction
from schemas.image import ImageError, inspect_image
from schemas.image.exif import EXIF_HEADER, orientation_only
from schemas.image.png_pixels import chunk_bytes
from schemas.pixels import decode_photo
from schemas.policy_rules import Caps, HarvestRules
from tests.nodes import photo, photo_id
from tests.pictures.odd import encoded, png, scene

AUDITED = next(number for number in range(1000) if drawn_for_audit(photo_id(number), 0.02))
OTHERS = [number for number in range(1000) if not drawn_for_audit(photo_id(number), 0.02)]
SURE = Prediction("pets", 1, {"cat": 0.99, "dog": 0.01}, b"")
FLIPPED = Prediction("pets", 1, {"cat": 0.01, "dog": 0.99}, b"")


def process(
    selector: Selector, number: int, dhash: int = 0, prediction: Prediction = SURE, now: float = 0.0
) -> str:
    """Decide about a photo and record it if it is harvested; return its lane or the refusal."""
    lane, refused = selector.choose(photo_id(number), "pi-1", dhash, prediction, now)
    if lane is not None:
        selector.record(HarvestedSample(photo_id(number), "pi-1", dhash, prediction.label, lane, 100, now))
    return lane or refused or ""


def test_audit_precedes_near_duplicate_and_quota_but_not_caps():
    """A drawn photo is harvested despite near-duplicate and quota; a cap refuses it."""
    one, two = OTHERS[:2]
    selector = Selector(HarvestRules(quota_per_day=1, caps=Caps(per_minute=2)))
    assert process(selector, one) == "auto"
    assert process(selector, two) == "near-duplicate"
    assert process(selector, two, dhash=2**64 - 1) == "quota"
    assert process(selector, AUDITED) == "audit"
    assert process(selector, AUDITED) == "cap-per-minute"


def test_near_duplicate_precedes_the_lane_and_quota_the_caps():
    """Each refusal is by the first rule that applies."""
    one, two, three, four = OTHERS[:4]
    selector = Selector(HarvestRules(auto=False, quota_per_day=1, caps=Caps(per_minute=1)))
    uncertain = Prediction("pets", 1, {"cat": 0.5, "dog": 0.5}, b"")
    assert process(selector, one, prediction=uncertain) == "hard"
    assert process(selector, two) == "near-duplicate"
    assert process(selector, three, dhash=2**64 - 1) == "auto-off"
    assert process(selector, four, dhash=2**32 - 1, prediction=uncertain) == "quota"


def test_a_flip_of_a_harvested_view_is_harvested_once():
    """The other label of a harvested view is hard; after that both labels are near-duplicates."""
    selector = Selector(HarvestRules(audit_share=0))
    labels = (SURE, FLIPPED, SURE, FLIPPED, SURE)
    outcomes = [process(selector, number, prediction=prediction) for number, prediction in enumerate(labels)]
    assert outcomes == ["auto", "hard", "near-duplicate", "near-duplicate", "near-duplicate"]


def test_a_flip_of_a_photo_that_was_not_harvested_is_hard():
    """With auto off a confident photo is refused; another confident label in the next photo is hard."""
    selector = Selector(HarvestRules(audit_share=0, auto=False))
    labels = (SURE, SURE, FLIPPED, SURE, FLIPPED)
    outcomes = [process(selector, number, prediction=prediction) for number, prediction in enumerate(labels)]
    assert outcomes == ["auto-off", "auto-off", "hard", "hard", "near-duplicate"]


@given(
    number=st.integers(0, 2**128 - 1),
    dhash=st.integers(0, 2**64 - 1),
    confidence=st.floats(0, 1),
    share=st.floats(0, 1),
)
@settings(deadline=None)
def test_the_audit_does_not_depend_on_the_scores(number, dhash, confidence, share):
    """Exactly the drawn photos are in the lane audit."""
    prediction = Prediction("pets", 1, {"cat": confidence, "dog": 1 - confidence}, b"")
    lane, _ = Selector(HarvestRules(audit_share=share)).choose(
        photo_id(number), "pi-1", dhash, prediction, 0.0
    )
    assert (lane == "audit") == drawn_for_audit(photo_id(number), share)


def test_a_photo_is_shrunk_to_training_size():
    """The short side becomes 320 px at the same aspect ratio; smaller photos stay byte for byte."""
    large = photo(1, size=(1280, 960))
    shrunk = shrink(large)
    assert (shrunk.width, shrunk.height) == (427, 320)
    assert Image.open(io.BytesIO(shrunk.image)).size == (427, 320)
    small = photo(1, size=(500, 320), kind="PNG")
    assert shrink(small) == (small, 500, 320)


@pytest.mark.parametrize("size", [(1280, 960), (160, 120)])
def test_a_turned_photo_is_shrunk_upright(size):
    """Orientation 6 gives a portrait without the tag; a small one keeps it, with the size as displayed."""
    turned = encoded(scene(size), exif=EXIF_HEADER + orientation_only(6))
    shrunk = shrink(turned)
    facts = inspect_image(shrunk.image)
    assert (shrunk.width, shrunk.height) == (facts.width, facts.height)
    assert shrunk.height / shrunk.width == pytest.approx(4 / 3, rel=0.01)
    assert facts.orientation == (1 if max(size) > 320 else 6)
    upright = encoded(scene(size).transpose(Image.Transpose.ROTATE_270))
    assert distance(dhash(turned), dhash(upright)) <= 2


def test_a_thermal_photo_of_16_bits_is_no_white_picture():
    """It is shrunk by its upper 8 bits, and other ones have other hashes."""
    hashes = set()
    for step in (7, 11):
        row = b"\x00" + b"".join((x * step * 9 % 65536).to_bytes(2) for x in range(700))
        image = png(16, 0, row * 400, (700, 400))
        assert ImageStat.Stat(decode_photo(shrink(image).image).picture).stddev[0] > 5
        hashes.add(dhash(image))
    assert len(hashes) == 2


def test_g4_a_bomb_is_not_decoded():
    """A PNG whose second header has 400 million pixels, and whose first passes the check of pixels."""
    header = (20_000).to_bytes(4) * 2 + b"\x01\x00\x00\x00\x00"
    small = encoded(scene(), "PNG")
    bomb = small[:33] + chunk_bytes(b"IHDR", header) + small[33:]
    for function in (shrink, dhash):
        with pytest.raises(ImageError):
            function(bomb)
