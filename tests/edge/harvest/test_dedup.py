"""Near-duplicates and flips are found by device, time and hash distance, within bounded memory."""

import io
import random

from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from edge.harvest.dedup import SeenHashes
from edge.harvest.history import MAX_SAMPLES, HarvestedSample
from edge.harvest.shrinking.image import dhash, distance
from schemas.lanes import AUTO
from schemas.policy_rules import HarvestRules
from tests.nodes import photo, photo_id

RULES = HarvestRules(near_duplicate_s=100, near_duplicate_bits=1)


def sample(device: str, hash_: int, label: str = "cat", at: float = 0.0) -> HarvestedSample:
    return HarvestedSample(photo_id(0), device, hash_, label, AUTO, 1000, at)


def test_size_brightness_and_compression_hardly_change_the_hash():
    """Smaller, darker or harder compressed, a view is within the default distance; another view is not."""
    picture = Image.open(io.BytesIO(photo(1, size=(640, 480))))
    original = dhash(photo(1, size=(640, 480)))
    for changed in (picture.resize((200, 150)), ImageEnhance.Brightness(picture).enhance(0.8)):
        out = io.BytesIO()
        changed.save(out, "JPEG", quality=40)
        assert distance(original, dhash(out.getvalue())) <= HarvestRules().near_duplicate_bits
    assert distance(original, dhash(photo(2))) > HarvestRules().near_duplicate_bits


def test_near_duplicates_are_of_one_device_and_expire():
    """Photos of other devices and older photos do not count; 0 seconds turn the check off."""
    seen = SeenHashes()
    seen.add(sample("pi-1", 0b1111))
    assert seen.compare("pi-1", 0b1110, "cat", RULES, 100.0) == "near-duplicate"
    assert seen.compare("pi-1", 0b1100, "cat", RULES, 1.0) == "new"
    assert seen.compare("pi-2", 0b1111, "cat", RULES, 1.0) == "new"
    assert seen.compare("pi-1", 0b1111, "cat", RULES, 100.1) == "new"
    assert seen.compare("pi-1", 0b1111, "cat", HarvestRules(near_duplicate_s=0), 0.0) == "new"


def test_another_label_for_nearly_the_same_view_is_a_flip():
    """Compared with harvested samples and with the last photo, within `near_duplicate_s`."""
    seen = SeenHashes()
    seen.add(sample("pi-1", 0b1111))
    assert seen.compare("pi-1", 0b1110, "dog", RULES, 100.0) == "flip"
    assert seen.compare("pi-1", 0b1100, "dog", RULES, 1.0) == "new"
    seen.set_last_photo("pi-2", 0b1111, "cat", 0.0)
    assert seen.compare("pi-2", 0b1110, "cat", RULES, 1.0) == "new"
    assert seen.compare("pi-2", 0b1110, "dog", RULES, 100.0) == "flip"
    assert seen.compare("pi-2", 0b1110, "dog", RULES, 100.1) == "new"
    seen.set_last_photo("pi-2", 0b110000, "cat", 2.0)
    assert seen.compare("pi-2", 0b1110, "dog", RULES, 3.0) == "new"


@given(st.lists(st.sampled_from(["cat", "dog", "fox"]), max_size=50))
@settings(deadline=None)
def test_a_flickering_view_is_harvested_once_per_label(labels):
    """However often the label changes, each label of a view is harvested once."""
    seen, harvested = SeenHashes(), []
    for moment, label in enumerate(labels):
        if seen.compare("pi-1", 7, label, RULES, float(moment)) != "near-duplicate":
            seen.add(sample("pi-1", 7, label, float(moment)))
            harvested.append(label)
        seen.set_last_photo("pi-1", 7, label, float(moment))
    assert sorted(harvested) == sorted(set(labels))


def test_memory_is_bounded():
    """The newest 20 000 samples and the last photos of 1024 devices are kept."""
    seen, draw = SeenHashes(), random.Random(1)
    for number in range(MAX_SAMPLES + 3000):
        seen.add(sample(f"pi-{number}", draw.getrandbits(64)))
        seen.set_last_photo(f"pi-{number}", draw.getrandbits(64), "cat", 0.0)
    assert len(seen._newest) == MAX_SAMPLES
    assert len(seen._by_device) == MAX_SAMPLES
    assert len(seen._last_photo) == 1024
