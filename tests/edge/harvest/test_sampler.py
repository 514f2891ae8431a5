"""Photos become samples for the cloud, in the lane and within the limits that the rules give."""

import asyncio
import threading

import pytest

from bus.config import OutboxLimits
from bus.metrics import Counters
from bus.outbox.outbox import Outbox
from bus.outbox.sqlite import Database
from edge.harvest.sampler import Sampler
from edge.harvest.samples import AdmittedSample
from edge.harvest.shrinking.decoders import Decoders
from edge.serving.prediction import Prediction
from schemas.codec import decode
from schemas.messages import Feedback, Photo, Sample
from schemas.pixels import decode_photo
from schemas.policy_rules import Caps, HarvestRules
from schemas.topics import SAMPLE
from tests.nodes import NODE, photo, photo_id, truncated

SURE = Prediction(
    "pets", 3, {"cat": 0.95, "dog": 0.05}, b"\0\0\x80?", novelty=0.5, temperature=2.0, variant="int8"
)
BETWEEN = Prediction("pets", 3, {"cat": 0.895, "dog": 0.105}, b"")


@pytest.fixture
async def outbox(tmp_path):
    async with Database(tmp_path / "edge.db", {"outbox": Outbox.MIGRATIONS}) as database:
        yield Outbox(database, OutboxLimits(max_messages=3), Counters(), name="sample")


def taken(number: int, image: bytes | None = None, device: str = "pi-1") -> Photo:
    return Photo(
        photo_id=photo_id(number), node=NODE, device=device, image=image or photo(number), taken_at_ms=5
    )


async def sampled(sampler: Sampler, one: Photo, prediction: Prediction = SURE):
    return await sampler.sample(one, (await sampler.hash_photos([(one.image, None)]))[0], prediction)


def sample_of(admitted: AdmittedSample) -> Sample:
    return decode(SAMPLE, admitted.item.payload, {"node": NODE})


async def test_a_sample_carries_what_the_cloud_needs(outbox):
    """Photo id, image at training size, lane, label, scores, model, embedding and time."""
    got, lane = await sampled(Sampler(HarvestRules(), outbox), taken(1, photo(1, size=(800, 640))))
    assert lane == "auto"
    sample = sample_of(got)
    assert (sample.photo_id, sample.device, sample.taken_at_ms) == (photo_id(1), "pi-1", 5)
    assert (sample.width, sample.height, sample.lane, sample.label) == (400, 320, "auto", "cat")
    assert (sample.scores, sample.model, sample.model_version) == (SURE.scores, "pets", 3)
    assert (sample.embedding, sample.variant) == (SURE.embedding, "int8")
    assert (sample.raw_confidence, sample.margin) == (SURE.raw_confidence, SURE.margin)
    assert (sample.entropy, sample.novelty, sample.inclusion) == (SURE.entropy, 0.5, None)


async def test_an_audit_sample_carries_its_inclusion_probability(outbox):
    """It is the audit share at the time of the draw, not that of a later policy."""
    sampler = Sampler(HarvestRules(audit_share=1.0), outbox)
    first, lane = await sampled(sampler, taken(1), BETWEEN)
    assert (lane, sample_of(first).lane, sample_of(first).inclusion) == ("audit", "audit", 1.0)
    sampler.set_rules(HarvestRules(audit_share=0.9999))
    second, _ = await sampled(sampler, taken(2))
    assert sample_of(second).inclusion == 0.9999


async def test_each_refusal_is_named(outbox):
    """Near-duplicate, between thresholds, undecodable, over a cap: none takes room in the outbox."""
    sampler = Sampler(HarvestRules(caps=Caps(per_minute=2)), outbox)
    assert await sampled(sampler, taken(1), BETWEEN) == (None, "between-thresholds")
    assert await sampled(sampler, taken(2, truncated(photo(2)))) == (None, "undecodable")
    assert (await sampled(sampler, taken(3)))[1] == "auto"
    assert await sampled(sampler, taken(4, photo(3))) == (None, "near-duplicate")
    assert (await sampled(sampler, taken(5)))[1] == "auto"
    assert await sampled(sampler, taken(6)) == (None, "cap-per-minute")
    assert len(outbox) == 2


async def test_an_exhausted_cap_refuses_before_anything_else(outbox):
    """Even a broken photo is refused by the cap, until the window has room."""
    now = 0.0
    rules = HarvestRules(audit_share=1.0, caps=Caps(per_hour=1))
    sampler = Sampler(rules, outbox, clock=lambda: now)
    assert (await sampled(sampler, taken(1)))[1] == "audit"
    broken = taken(2, truncated(photo(2)))
    assert await sampled(sampler, broken) == (None, "cap-per-hour")
    now = 3600.0
    assert await sampled(sampler, broken) == (None, "undecodable")
    assert (await sampled(sampler, taken(3)))[1] == "audit"


async def test_a_full_outbox_refuses_samples(outbox):
    """The refusal is `outbox-full`; no error is raised."""
    sampler = Sampler(HarvestRules(), outbox)
    lanes = [(await sampled(sampler, taken(number)))[1] for number in range(4)]
    assert lanes == ["auto", "auto", "auto", "outbox-full"]


async def test_a_refused_sample_makes_no_near_duplicate(outbox):
    """Only admitted samples count: after a refusal for lack of room, the same view can be harvested."""
    sampler = Sampler(HarvestRules(), outbox)
    items = [(await sampled(sampler, taken(number)))[0] for number in range(3)]
    assert (await sampled(sampler, taken(9)))[1] == "outbox-full"
    outbox.abort(items[0].item)
    assert (await sampled(sampler, taken(9)))[1] == "auto"


async def test_a_photo_whose_sample_is_in_the_outbox_is_not_sampled_again(outbox):
    """The outbox is keyed by photo id, also for another device with the same id."""
    sampler = Sampler(HarvestRules(near_duplicate_s=0), outbox)
    assert (await sampled(sampler, taken(1)))[1] == "auto"
    assert await sampled(sampler, taken(1, photo(2), "pi-2")) == (None, "already-waiting")


async def test_new_rules_keep_counting_earlier_samples(outbox):
    """Thresholds and caps change with the next photo; hashes and counts stay."""
    sampler = Sampler(HarvestRules(), outbox)
    assert (await sampled(sampler, taken(1)))[1] == "auto"
    sampler.set_rules(HarvestRules(uncertain_above=0.1, auto_confidence=1.0, caps=Caps(per_hour=2)))
    assert await sampled(sampler, taken(2, photo(1))) == (None, "near-duplicate")
    assert (await sampled(sampler, taken(3)))[1] == "hard"
    assert await sampled(sampler, taken(4)) == (None, "cap-per-hour")


def label(number: int, device: str = "pi-1") -> Feedback:
    return Feedback(photo_id=photo_id(number), node=NODE, device=device, label="dog")


async def test_a_label_harvests_a_kept_photo(outbox):
    """In lane feedback, despite near-duplicate and quota, with the prediction of that time; only once."""
    sampler = Sampler(HarvestRules(quota_per_day=1), outbox, recent_bytes=100_000)
    assert (await sampled(sampler, taken(1)))[1] == "auto"
    again = taken(2, photo(1, size=(1280, 960)))
    assert (await sampled(sampler, again))[1] == "near-duplicate"
    sampler.keep_for_labels(again, SURE)
    assert await sampler.sample_labelled(label(2, "pi-2")) is None
    got, lane = await sampler.sample_labelled(label(2))
    sample = sample_of(got)
    assert (lane, sample.lane, sample.label, sample.photo_id) == ("feedback", "feedback", "cat", photo_id(2))
    assert (sample.width, sample.height, sample.inclusion) == (427, 320, None)
    assert await sampler.sample_labelled(label(2)) is None


async def test_caps_hold_for_labels_too(outbox):
    """A photo refused by a cap stays, so that the same label can harvest it later."""
    now = 0.0
    sampler = Sampler(HarvestRules(caps=Caps(per_minute=0)), outbox, recent_bytes=9999, clock=lambda: now)
    sampler.keep_for_labels(taken(1), SURE)
    assert await sampler.sample_labelled(label(1)) == (None, "cap-per-minute")
    sampler.set_rules(HarvestRules())
    assert (await sampler.sample_labelled(label(1)))[1] == "feedback"


async def test_recent_bytes_of_0_keep_no_photo(outbox):
    """A label then finds nothing; a kept photo that Pillow cannot decode is found once."""
    sampler = Sampler(HarvestRules(), outbox)
    sampler.keep_for_labels(taken(1), SURE)
    assert await sampler.sample_labelled(label(1)) is None
    sampler = Sampler(HarvestRules(), outbox, recent_bytes=9999)
    sampler.keep_for_labels(taken(1, truncated(photo(1))), SURE)
    assert await sampler.sample_labelled(label(1)) == (None, "undecodable")
    assert await sampler.sample_labelled(label(1)) is None


async def test_caps_hold_for_concurrent_samples(outbox):
    """Photos of many devices that are shrunk at the same time do not exceed a cap together."""
    sampler = Sampler(HarvestRules(caps=Caps(per_minute=2)), outbox)
    devices = [taken(number, photo(number, size=(800, 640)), f"pi-{number}") for number in range(3, 9)]
    outcomes = await asyncio.gather(*(sampled(sampler, one) for one in devices))
    assert sorted(lane for _, lane in outcomes) == ["auto"] * 2 + ["cap-per-minute"] * 4


def half_grey(number: int) -> bytes:
    """Return a photo that lost half of its data on the way, and ends as it should."""
    image = photo(number, size=(800, 640))
    start = image.index(b"\xff\xda") + 14
    return image[: start + (len(image) - start) // 2] + b"\xff\xd9"


async def test_damage_is_reported_while_a_cap_is_exhausted(outbox):
    """The answer has the damage of a photo, harvested or not."""
    sampler = Sampler(HarvestRules(caps=Caps(per_minute=0)), outbox)
    hashes = await sampler.hash_photos([(half_grey(1), "a"), (photo(2, kind="PNG"), "a"), (photo(3), "b")])
    assert [hashed.refused for hashed in hashes] == ["cap-per-minute"] * 3
    assert [hashed.damaged is not None for hashed in hashes] == [True, False, False]


async def test_cheap_photos_need_no_thread(outbox):
    """They get their hash, and the truth about damage, also while all threads for decoding are occupied."""
    decoders, release = Decoders(), threading.Event()
    sampler = Sampler(HarvestRules(), outbox, decoders=decoders)
    photos = [(photo(1), None), (half_grey(1), None), (b"no image", None)]
    expected = await sampler.hash_photos(photos)
    occupied = [asyncio.create_task(decoders.run(release.wait)) for _ in range(2)]
    await asyncio.sleep(0)
    try:
        async with asyncio.timeout(5):
            assert await sampler.hash_photos(photos, cheap=True) == expected
    finally:
        release.set()
        await asyncio.gather(*occupied)
    assert [hashed.damaged is not None for hashed in expected] == [False, True, False]


async def test_a_damaged_photo_is_not_harvested_as_sure(outbox):
    """Lane auto refuses it; a person can still see it, as an intact JPEG, in the lanes hard and audit."""
    sampler = Sampler(HarvestRules(), outbox)
    hashed = (await sampler.hash_photos([(half_grey(1), None)]))[0]
    assert hashed.damaged is not None
    assert await sampled(sampler, taken(1, half_grey(1))) == (None, "damaged")
    whole = (await sampler.hash_photos([(photo(1), None)]))[0]
    told = whole._replace(damaged="no end marker")  # by the check before its normal form was made
    assert await sampler.sample(taken(1), told, SURE) == (None, "damaged")
    sampler.set_rules(HarvestRules(audit_share=1.0))
    got, lane = await sampled(sampler, taken(2, half_grey(2)))
    assert lane == "audit"
    assert decode_photo(sample_of(got).image).damaged is None
