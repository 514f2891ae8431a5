"""The rules apply in order: audit, near-duplicate, lane, quota, caps."""

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
