import asyncio

import pytest

from bus.config import OutboxLimits
from bus.metrics import Counters
from bus.outbox.outbox import Outbox
from bus.outbox.sqlite import Database
from edge.harvest.sampler import AdmittedSample, Sampler
from edge.serving.prediction import Prediction
from schemas.codec import decode
from schemas.messages import Caps, Feedback, HarvestRules, Photo, Sample
from schemas.topics import SAMPLE
from tests.nodes import NODE, photo, photo_id, truncated

SURE = Prediction("pets", 3, {"cat": 0.95, "dog": 0.05}, b"\0\0\x80?", novelty=0.5, temperature=2.0)
BETWEEN = Prediction("pets", 3, {"cat": 0.895, "dog": 0.105}, b"")


@pytest.fixture
async def outbox(tmp_path):
    async with Database(tmp_path / "edge.db", {"outbox": Outbox.MIGRATIONS}) as database:
        yield Outbox(database, OutboxLimits(max_messages=3), Counters(), name="sample")


def taken(number: int, image: bytes | None = None, device: str = "pi-1") -> Photo:
    return Photo(
        photo_id=photo_id(number), node=NODE, device=device, image=image or photo(number), taken_at_ms=5
    )


async def sampled(sampler: Sampler, one: Photo, said: Prediction = SURE):
    return await sampler.sample(one, await sampler.view(one.image), said)


def sample_of(taken_: AdmittedSample) -> Sample:
    return decode(SAMPLE, taken_.item.payload, {"node": NODE})


async def test_a_sample_carries_what_the_cloud_needs(outbox):
    """Image at training size, lane, label, scores, model, embedding and time travel with the photo's id."""
    got, lane = await sampled(Sampler(HarvestRules(), outbox), taken(1, photo(1, size=(800, 640))))
    assert lane == "auto"
    sample = sample_of(got)
    assert (sample.photo_id, sample.device, sample.taken_at_ms) == (photo_id(1), "pi-1", 5)
    assert (sample.width, sample.height, sample.lane, sample.label) == (400, 320, "auto", "cat")
    assert (sample.scores, sample.model, sample.model_version) == (SURE.scores, "pets", 3)
    assert sample.embedding == SURE.embedding
    assert (sample.raw_confidence, sample.margin) == (SURE.raw_confidence, SURE.margin)
    assert (sample.entropy, sample.novelty, sample.inclusion) == (SURE.entropy, 0.5, None)


async def test_an_audit_sample_carries_with_what_probability_it_was_drawn(outbox):
    """So that the audit can be weighed after the share was changed by a policy."""
    sampler = Sampler(HarvestRules(audit_share=1.0), outbox)
    first, lane = await sampled(sampler, taken(1), BETWEEN)
    assert (lane, sample_of(first).lane, sample_of(first).inclusion) == ("audit", "audit", 1.0)
    sampler.follow(HarvestRules(audit_share=0.9999))
    second, _ = await sampled(sampler, taken(2))
    assert sample_of(second).inclusion == 0.9999


async def test_each_refusal_says_why(outbox):
    """Near-duplicate, between thresholds, undecodable, over a cap: each has its name and costs no place."""
    sampler = Sampler(HarvestRules(caps=Caps(per_minute=2)), outbox)
    assert await sampled(sampler, taken(1), BETWEEN) == (None, "between-thresholds")
    assert await sampled(sampler, taken(2, truncated(photo(2)))) == (None, "undecodable")
    assert (await sampled(sampler, taken(3)))[1] == "auto"
    assert await sampled(sampler, taken(4, photo(3))) == (None, "near-duplicate")
    assert (await sampled(sampler, taken(5)))[1] == "auto"
    assert await sampled(sampler, taken(6)) == (None, "cap-per-minute")
    assert len(outbox) == 2


async def test_nothing_is_decoded_where_a_cap_leaves_no_room(outbox):
    """The cap refuses even what Pillow could not decode, whatever the model says, until there is room."""
    now = 0.0
    rules = HarvestRules(audit_share=1.0, caps=Caps(per_hour=1))
    sampler = Sampler(rules, outbox, clock=lambda: now)
    assert (await sampled(sampler, taken(1)))[1] == "audit"
    broken = taken(2, truncated(photo(2)))
    assert await sampled(sampler, broken) == (None, "cap-per-hour")
    now = 3600.0
    assert await sampled(sampler, broken) == (None, "undecodable")
    assert (await sampled(sampler, taken(3)))[1] == "audit"


async def test_a_full_outbox_refuses_the_sample_alone(outbox):
    """No room on the disk costs the sample and not the answer."""
    sampler = Sampler(HarvestRules(), outbox)
    lanes = [(await sampled(sampler, taken(number)))[1] for number in range(4)]
    assert lanes == ["auto", "auto", "auto", "outbox-full"]


async def test_a_refused_sample_does_not_use_up_its_view(outbox):
    """Only what is on its way counts as seen: refused for want of room, the view may come again later."""
    sampler = Sampler(HarvestRules(), outbox)
    items = [(await sampled(sampler, taken(number)))[0] for number in range(3)]
    assert (await sampled(sampler, taken(9)))[1] == "outbox-full"
    outbox.abort(items[0].item)
    assert (await sampled(sampler, taken(9)))[1] == "auto"


async def test_a_photo_whose_sample_waits_is_not_sampled_twice(outbox):
    """One photo id is one sample, whatever the device calls it."""
    sampler = Sampler(HarvestRules(near_duplicate_s=0), outbox)
    assert (await sampled(sampler, taken(1)))[1] == "auto"
    assert await sampled(sampler, taken(1, photo(2), "pi-2")) == (None, "already-waiting")


async def test_new_rules_count_what_was_harvested_before(outbox):
    """A policy changes thresholds and caps from the next photo on, and forgets nothing."""
    sampler = Sampler(HarvestRules(), outbox)
    assert (await sampled(sampler, taken(1)))[1] == "auto"
    sampler.follow(HarvestRules(uncertain_above=0.1, auto_confidence=1.0, caps=Caps(per_hour=2)))
    assert await sampled(sampler, taken(2, photo(1))) == (None, "near-duplicate")
    assert (await sampled(sampler, taken(3)))[1] == "hard"
    assert await sampled(sampler, taken(4)) == (None, "cap-per-hour")


def label(number: int, device: str = "pi-1") -> Feedback:
    return Feedback(photo_id=photo_id(number), node=NODE, device=device, label="dog")


async def test_a_label_harvests_a_photo_that_is_still_here(outbox):
    """In lane feedback, past near-duplicate and quota, with what the model had said; only once."""
    sampler = Sampler(HarvestRules(quota_per_day=1), outbox, recent_bytes=100_000)
    assert (await sampled(sampler, taken(1)))[1] == "auto"
    again = taken(2, photo(1, size=(640, 480)))
    assert (await sampled(sampler, again))[1] == "near-duplicate"
    sampler.keep(again, SURE)
    assert await sampler.labelled(label(2, "pi-2")) is None
    got, lane = await sampler.labelled(label(2))
    sample = sample_of(got)
    assert (lane, sample.lane, sample.label, sample.photo_id) == ("feedback", "feedback", "cat", photo_id(2))
    assert (sample.width, sample.height, sample.inclusion) == (427, 320, None)
    assert await sampler.labelled(label(2)) is None


async def test_caps_hold_for_labels_too(outbox):
    """Refused by a cap, the photo is kept, and the same label may harvest it later."""
    now = 0.0
    sampler = Sampler(HarvestRules(caps=Caps(per_minute=0)), outbox, recent_bytes=9999, clock=lambda: now)
    sampler.keep(taken(1), SURE)
    assert await sampler.labelled(label(1)) == (None, "cap-per-minute")
    sampler.follow(HarvestRules())
    assert (await sampler.labelled(label(1)))[1] == "feedback"


async def test_nothing_is_kept_unless_wanted(outbox):
    """With 0 bytes for it a label finds nothing; what Pillow cannot decode it does not find twice."""
    sampler = Sampler(HarvestRules(), outbox)
    sampler.keep(taken(1), SURE)
    assert await sampler.labelled(label(1)) is None
    sampler = Sampler(HarvestRules(), outbox, recent_bytes=9999)
    sampler.keep(taken(1, truncated(photo(1))), SURE)
    assert await sampler.labelled(label(1)) == (None, "undecodable")
    assert await sampler.labelled(label(1)) is None


async def test_caps_hold_while_samples_are_made_side_by_side(outbox):
    """Photos of many devices that are shrunk at the same time do not slip past the cap together."""
    sampler = Sampler(HarvestRules(caps=Caps(per_minute=2)), outbox)
    devices = [taken(number, photo(number, size=(800, 640)), f"pi-{number}") for number in range(3, 9)]
    outcomes = await asyncio.gather(*(sampled(sampler, one) for one in devices))
    assert sorted(lane for _, lane in outcomes) == ["auto"] * 2 + ["cap-per-minute"] * 4
