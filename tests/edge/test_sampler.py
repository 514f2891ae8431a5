import pytest

from bus.config import OutboxLimits
from bus.database import Database
from bus.metrics import Counters
from bus.outbox import Outbox
from edge.sampler import Sampler
from edge.scores import Scored
from schemas.codec import decode
from schemas.messages import Caps, HarvestRules, Photo
from schemas.topics import SAMPLE
from tests.nodes import NODE, photo, photo_id, truncated

SURE = Scored("pets", 3, {"cat": 0.95, "dog": 0.05}, b"\0\0\x80?")
BETWEEN = Scored("pets", 3, {"cat": 0.8, "dog": 0.2}, b"")


@pytest.fixture
async def outbox(tmp_path):
    async with Database(tmp_path / "edge.db", {"outbox": Outbox.MIGRATIONS}) as database:
        yield Outbox(database, OutboxLimits(max_messages=3), Counters(), name="sample")


def taken(number: int, image: bytes | None = None, device: str = "pi-1") -> Photo:
    return Photo(
        photo_id=photo_id(number), node=NODE, device=device, image=image or photo(number), taken_at_ms=5
    )


async def sampled(sampler: Sampler, one: Photo, said: Scored = SURE):
    return await sampler.sample(one, await sampler.view(one.image), said)


async def test_a_sample_carries_what_the_cloud_needs(outbox):
    """Image at training size, lane, label, scores, model, embedding and time travel with the photo's id."""
    item, lane = await sampled(Sampler(HarvestRules(), outbox), taken(1, photo(1, size=(800, 640))))
    assert lane == "auto"
    sample = decode(SAMPLE, item.payload, {"node": NODE})
    assert (sample.photo_id, sample.device, sample.taken_at_ms) == (photo_id(1), "pi-1", 5)
    assert (sample.width, sample.height, sample.lane, sample.label) == (400, 320, "auto", "cat")
    assert (sample.scores, sample.model, sample.model_version) == (SURE.scores, "pets", 3)
    assert sample.embedding == SURE.embedding


async def test_each_refusal_says_why(outbox):
    """Near-duplicate, between thresholds, undecodable, over a cap: each has its name and costs no place."""
    sampler = Sampler(HarvestRules(caps=Caps(per_minute=1)), outbox)
    assert await sampled(sampler, taken(1), BETWEEN) == (None, "between-thresholds")
    assert await sampled(sampler, taken(2, truncated(photo(2)))) == (None, "undecodable")
    assert (await sampled(sampler, taken(3)))[1] == "auto"
    assert await sampled(sampler, taken(4, photo(3))) == (None, "near-duplicate")
    assert await sampled(sampler, taken(5)) == (None, "cap-per-minute")
    assert len(outbox) == 1


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
    outbox.withdraw(items[0])
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
    sampler.follow(HarvestRules(hard_confidence=0.99, auto_confidence=1.0, caps=Caps(per_hour=2)))
    assert await sampled(sampler, taken(2, photo(1))) == (None, "near-duplicate")
    assert (await sampled(sampler, taken(3)))[1] == "hard"
    assert await sampled(sampler, taken(4)) == (None, "cap-per-hour")
