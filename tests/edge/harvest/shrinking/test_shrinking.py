"""Samples are shrunk after the answer, one at a time, when nothing waits for an answer."""

import asyncio

import pytest

from bus.config import Broker, OutboxLimits
from bus.metrics import Counters
from bus.mqtt.client import Bus
from bus.outbox.outbox import Outbox
from bus.outbox.sqlite import Database
from edge.harvest import history
from edge.harvest.sampler import Sampler
from edge.harvest.shrinking import unshrunk
from edge.harvest.shrinking.decoders import Decoders
from edge.harvest.shrinking.shrinking import MAX_WAITING, Shrinking
from schemas.codec import decode
from schemas.image import DEFAULT_LIMITS
from schemas.policy_rules import Caps, HarvestRules
from schemas.topics import SAMPLE
from tests.conftest import DEADLINE_S, eventually
from tests.edge.harvest.test_sampler import SURE, taken
from tests.nodes import NODE, photo, photo_id

TABLES = {"outbox": Outbox.MIGRATIONS, "harvested": history.MIGRATIONS, "unshrunk": unshrunk.MIGRATIONS}
LARGE = (800, 640)
RULES = HarvestRules(audit_share=0, near_duplicate_s=0)


class Edge:
    """The parts of an edge that make samples."""

    def __init__(self, database: Database, rules: HarvestRules = RULES, max_bytes: int = 8_000_000) -> None:
        self.database = database
        self.outbox = Outbox(database, OutboxLimits(), Counters(), name="sample")
        self.decoders = Decoders()
        self.shrinking = Shrinking(database, self.outbox, self.decoders, DEFAULT_LIMITS)
        self.sampler = Sampler(
            rules, self.outbox, max_bytes=max_bytes, decoders=self.decoders, shrinking=self.shrinking
        )
        self.nothing_waits = asyncio.Event()

    async def run(self) -> None:
        await self.sampler.run(Bus(Broker(port=1), "edge"), self.nothing_waits.wait)

    async def harvest(self, number: int, size: tuple[int, int] = LARGE):
        one = taken(number, photo(number, size=size))
        return await self.sampler.sample(one, (await self.sampler.hash_photos([(one.image, None)]))[0], SURE)

    async def answer(self, admitted) -> None:
        await self.database.run(admitted.write)
        self.sampler.commit(admitted)

    async def stored(self) -> dict[str, tuple[int, int, bytes]]:
        """Return size and image of the samples on the disk."""
        found = await self.database.run(
            lambda connection: connection.execute("SELECT payload FROM outbox").fetchall()
        )
        samples = [decode(SAMPLE, payload, {"node": NODE}) for (payload,) in found]
        return {one.photo_id: (one.width, one.height, one.image) for one in samples}


@pytest.fixture
async def edge(tmp_path):
    async with Database(tmp_path / "edge.db", TABLES) as database:
        yield Edge(database)


async def test_an_answer_does_not_wait_for_the_jpeg_of_its_sample(edge):
    """The sample is on the disk as it was taken while all decoders for expensive work are occupied."""
    release = asyncio.get_running_loop().create_future()
    occupied = asyncio.create_task(
        edge.decoders.run(
            lambda: asyncio.run_coroutine_threadsafe(
                asyncio.wait_for(release, 60), release.get_loop()
            ).result(),
            expensive=True,
        )
    )
    async with asyncio.timeout(DEADLINE_S):
        admitted, lane = await edge.harvest(1)
        await edge.answer(admitted)
        assert lane == "auto"
        assert await edge.stored() == {photo_id(1): (*LARGE, photo(1, size=LARGE))}
        assert not occupied.done()
    release.set_result(None)
    await occupied


async def test_a_sample_is_sent_when_it_is_shrunk(edge):
    """Not before nothing waits for an answer; what counts is its size then, also after a restart."""
    admitted, _ = await edge.harvest(1)
    await edge.answer(admitted)
    running = asyncio.create_task(edge.run())
    assert edge.outbox.unanswered == 0
    assert edge.outbox.send_count(photo_id(1)) == 0
    edge.nothing_waits.set()
    await eventually(edge.shrinking.is_empty)
    width, height, image = (await edge.stored())[photo_id(1)]
    assert (width, height) == (400, 320)
    assert edge.outbox.size_bytes < len(photo(1, size=LARGE))
    counted = await edge.database.run(lambda connection: history.load(connection, 0.0, 2**50))
    assert [one.size_bytes for one in counted] == [len(image)]
    running.cancel()


async def test_g3_the_bytes_of_shrunk_samples_count_against_the_caps(tmp_path):
    """A large photo is not refused for its size as taken, and a cap of bytes holds for what is sent."""
    async with Database(tmp_path / "edge.db", TABLES) as database:
        size_bytes = len(photo(1, size=LARGE))
        edge = Edge(
            database, HarvestRules(audit_share=0, near_duplicate_s=0, caps=Caps(bytes_per_day=40_000))
        )
        assert size_bytes < 40_000
        edge.nothing_waits.set()
        running = asyncio.create_task(edge.run())
        found = []
        while "cap-bytes-per-day" not in found:
            admitted, harvest = await edge.harvest(len(found))
            found.append(harvest)
            if admitted is not None:
                await edge.answer(admitted)
                await eventually(edge.shrinking.is_empty)
        assert len(found) > 2
        assert sum(len(image) for *_, image in (await edge.stored()).values()) <= 40_000
        running.cancel()


async def test_g3_few_samples_wait(edge):
    """Beyond the bound, a sample is shrunk before the answer."""
    harvested = [(await edge.harvest(number))[0] for number in range(MAX_WAITING + 2)]
    assert [one.original is not None for one in harvested] == [True] * MAX_WAITING + [False] * 2
    edge.sampler.abort(harvested[0])
    assert (await edge.harvest(99))[0].original is not None


@pytest.mark.parametrize(
    ("size", "kind", "stored"),
    [
        ((640, 480), "JPEG", (640, 480)),
        ((480, 640), "JPEG", (480, 640)),
        ((482, 642), "JPEG", None),
        ((400, 320), "PNG", (400, 320)),
        ((640, 480), "PNG", None),
        ((1200, 480), "JPEG", None),
    ],
)
async def test_a_photo_that_is_not_much_larger_stays_as_it_is(edge, size, kind, stored):
    """A JPEG below 1.5 times the training size is a sample byte for byte; a PNG or a panorama is shrunk."""
    image = photo(1, size=size, kind=kind)
    one = taken(1, image)
    admitted, _ = await edge.sampler.sample(one, (await edge.sampler.hash_photos([(image, None)]))[0], SURE)
    sample = decode(SAMPLE, admitted.item.payload, {"node": NODE})
    assert sample.image == image
    assert (admitted.original is None) == (stored is not None)
    assert (sample.width, sample.height) == size


async def test_a_photo_that_the_uplink_cannot_carry_is_shrunk_before_the_answer(tmp_path):
    """If shrinking fails later, the sample is sent as it is, so it must fit."""
    async with Database(tmp_path / "edge.db", TABLES) as database:
        admitted, lane = await Edge(database, max_bytes=100_001).harvest(1)
        assert (lane, admitted.original) == ("auto", None)


async def test_g2_the_next_run_shrinks_what_is_left_once(tmp_path):
    """A start shrinks samples before it sends them; one whose shrinking ended a start is sent as it is."""
    async with Database(tmp_path / "edge.db", TABLES) as database:
        edge = Edge(database)
        for number in (1, 2):
            admitted, _ = await edge.harvest(number)
            await edge.answer(admitted)
        await Edge(database).shrinking.load()
        assert {found[:2] for found in (await edge.stored()).values()} == {(400, 320)}
        admitted, _ = await edge.harvest(3)
        await edge.answer(admitted)
        await database.run(unshrunk.left)  # and that start was killed
        await Edge(database).shrinking.load()
        assert (await edge.stored())[photo_id(3)][:2] == LARGE
        assert await database.run(unshrunk.left) == []
