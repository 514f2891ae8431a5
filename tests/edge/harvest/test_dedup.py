"""Near-duplicates and flips: what a device showed before, within bounds."""

import io
import random

from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from edge.harvest.dedup import SeenHashes
from edge.harvest.history import KEPT, HarvestedSample
from edge.harvest.image import dhash, distance
from schemas.messages import HarvestRules
from tests.nodes import photo, photo_id

RULES = HarvestRules(near_duplicate_s=100, near_duplicate_bits=1)


def sample(device: str, view: int, label: str = "cat", at: float = 0.0) -> HarvestedSample:
    return HarvestedSample(photo_id(0), device, view, label, "auto", 1000, at)


def test_the_same_view_is_recognised_in_other_clothes():
    """Smaller, brighter or harder compressed, a view keeps its hash; another view has another."""
    picture = Image.open(io.BytesIO(photo(1, size=(640, 480))))
    seen = dhash(photo(1, size=(640, 480)))
    for changed in (picture.resize((200, 150)), ImageEnhance.Brightness(picture).enhance(0.8)):
        out = io.BytesIO()
        changed.save(out, "JPEG", quality=40)
        assert distance(seen, dhash(out.getvalue())) <= HarvestRules().near_duplicate_bits
    assert distance(seen, dhash(photo(2))) > HarvestRules().near_duplicate_bits


def test_a_view_is_near_only_on_its_device_and_for_its_time():
    """What another device saw, or what was seen too long ago, is no duplicate; 0 seconds turn it off."""
    views = SeenHashes()
    views.remember(sample("pi-1", 0b1111))
    assert views.compare("pi-1", 0b1110, "cat", RULES, 100.0) == "near"
    assert views.compare("pi-1", 0b1100, "cat", RULES, 1.0) == "new"
    assert views.compare("pi-2", 0b1111, "cat", RULES, 1.0) == "new"
    assert views.compare("pi-1", 0b1111, "cat", RULES, 100.1) == "new"
    assert views.compare("pi-1", 0b1111, "cat", HarvestRules(near_duplicate_s=0), 0.0) == "new"


def test_another_label_for_nearly_the_same_view_is_a_flip():
    """Against what was harvested, and against what was shown last and not harvested; for its time."""
    views = SeenHashes()
    views.remember(sample("pi-1", 0b1111))
    assert views.compare("pi-1", 0b1110, "dog", RULES, 100.0) == "flipped"
    assert views.compare("pi-1", 0b1100, "dog", RULES, 1.0) == "new"
    views.show("pi-2", 0b1111, "cat", 0.0)
    assert views.compare("pi-2", 0b1110, "cat", RULES, 1.0) == "new"
    assert views.compare("pi-2", 0b1110, "dog", RULES, 100.0) == "flipped"
    assert views.compare("pi-2", 0b1110, "dog", RULES, 100.1) == "new"
    views.show("pi-2", 0b110000, "cat", 2.0)
    assert views.compare("pi-2", 0b1110, "dog", RULES, 3.0) == "new"


@given(st.lists(st.sampled_from(["cat", "dog", "fox"]), max_size=50))
@settings(deadline=None)
def test_a_flickering_scene_is_harvested_once_for_each_label(labels):
    """However often the label changes, each one of a view is harvested once."""
    views, taken = SeenHashes(), []
    for moment, label in enumerate(labels):
        if views.compare("pi-1", 7, label, RULES, float(moment)) != "near":
            views.remember(sample("pi-1", 7, label, float(moment)))
            taken.append(label)
        views.show("pi-1", 7, label, float(moment))
    assert sorted(taken) == sorted(set(labels))


def test_the_memory_of_views_is_bounded():
    """However many devices and views come, only so many are remembered, and of no device that has none."""
    views, draw = SeenHashes(), random.Random(1)
    for number in range(KEPT + 3000):
        views.remember(sample(f"pi-{number}", draw.getrandbits(64)))
        views.show(f"pi-{number}", draw.getrandbits(64), "cat", 0.0)
    assert len(views._newest) == KEPT
    assert len(views._by_device) == KEPT
    assert len(views._shown) == 1024
