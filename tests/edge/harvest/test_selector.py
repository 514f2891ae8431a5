"""The order of the rules: audit, near-duplicate, lane, quota, caps."""

import io

from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edge.harvest.history import HarvestedSample
from edge.harvest.image import shrink
from edge.harvest.lanes import drawn_for_audit
from edge.harvest.selector import Selector
from edge.serving.prediction import Prediction
from schemas.messages import Caps, HarvestRules
from tests.nodes import photo, photo_id

AUDITED = next(number for number in range(1000) if drawn_for_audit(photo_id(number), 0.02))
OTHERS = [number for number in range(1000) if not drawn_for_audit(photo_id(number), 0.02)]
SURE = Prediction("pets", 1, {"cat": 0.99, "dog": 0.01}, b"")
FLIPPED = Prediction("pets", 1, {"cat": 0.01, "dog": 0.99}, b"")


def see(harvester: Selector, number: int, view: int = 0, said: Prediction = SURE, now: float = 0.0) -> str:
    """Decide about a photo and remember it if it is harvested; returns its lane or why not."""
    lane, refused = harvester.choose(photo_id(number), "pi-1", view, said, now)
    if lane is not None:
        harvester.record(HarvestedSample(photo_id(number), "pi-1", view, said.label, lane, 100, now))
    return lane or refused or ""


def test_the_audit_goes_before_near_duplicate_and_quota_but_not_before_caps():
    """A drawn photo is harvested although its view was, and no quota counts it; a cap refuses it."""
    one, two = OTHERS[:2]
    harvester = Selector(HarvestRules(quota_per_day=1, caps=Caps(per_minute=2)))
    assert see(harvester, one) == "auto"
    assert see(harvester, two) == "near-duplicate"
    assert see(harvester, two, view=2**64 - 1) == "quota"
    assert see(harvester, AUDITED) == "audit"
    assert see(harvester, AUDITED) == "cap-per-minute"


def test_near_duplicate_goes_before_the_lane_and_the_quota_before_the_caps():
    """Each refusal is by the first rule that applies."""
    one, two, three, four = OTHERS[:4]
    harvester = Selector(HarvestRules(auto=False, quota_per_day=1, caps=Caps(per_minute=1)))
    doubt = Prediction("pets", 1, {"cat": 0.5, "dog": 0.5}, b"")
    assert see(harvester, one, said=doubt) == "hard"
    assert see(harvester, two) == "near-duplicate"
    assert see(harvester, three, view=2**64 - 1) == "auto-off"
    assert see(harvester, four, view=2**32 - 1, said=doubt) == "quota"


def test_a_flip_is_harvested_once_although_it_is_near():
    """The other label of a harvested view goes to hard; after that both are near-duplicates."""
    harvester = Selector(HarvestRules(audit_share=0))
    labels = (SURE, FLIPPED, SURE, FLIPPED, SURE)
    outcomes = [see(harvester, number, said=said) for number, said in enumerate(labels)]
    assert outcomes == ["auto", "hard", "near-duplicate", "near-duplicate", "near-duplicate"]


def test_a_flip_shows_against_what_was_not_harvested_too():
    """With auto off a sure label is refused; when the next frame is as sure of another, that is hard."""
    harvester = Selector(HarvestRules(audit_share=0, auto=False))
    labels = (SURE, SURE, FLIPPED, SURE, FLIPPED)
    outcomes = [see(harvester, number, said=said) for number, said in enumerate(labels)]
    assert outcomes == ["auto-off", "auto-off", "hard", "hard", "near-duplicate"]


@given(
    number=st.integers(0, 2**128 - 1),
    view=st.integers(0, 2**64 - 1),
    confidence=st.floats(0, 1),
    share=st.floats(0, 1),
)
@settings(deadline=None)
def test_the_draw_does_not_hang_on_what_the_model_says(number, view, confidence, share):
    """Exactly the photos that the draw names are in the audit."""
    said = Prediction("pets", 1, {"cat": confidence, "dog": 1 - confidence}, b"")
    lane, _ = Selector(HarvestRules(audit_share=share)).choose(photo_id(number), "pi-1", view, said, 0.0)
    assert (lane == "audit") == drawn_for_audit(photo_id(number), share)


def test_a_photo_is_shrunk_to_training_size():
    """The short side becomes 320 px and the aspect stays; what is small enough stays byte for byte."""
    large = photo(1, size=(1280, 960))
    shrunk = shrink(large)
    assert (shrunk.width, shrunk.height) == (427, 320)
    assert Image.open(io.BytesIO(shrunk.image)).size == (427, 320)
    small = photo(1, size=(500, 320), kind="PNG")
    assert shrink(small) == (small, 500, 320)
