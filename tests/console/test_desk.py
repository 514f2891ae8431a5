"""Rules of console/review/desk.py: nobody waits for the list of photos while there is an earlier one."""

import asyncio
import threading
from contextlib import asynccontextmanager

import pytest

from cloud.dataset.store import Store
from cloud.labeling.review_queue import listed_for_review
from console.access.roles import Visitor
from console.review import desk as desks
from console.review.desk import ReviewDesk
from console.review.leases import Leases
from schemas.errors import TransientError
from tests.conftest import DEADLINE_S, eventually
from tests.console.conftest import sample

ADA = Visitor(name="ada", role="reviewer", session="1")


@pytest.fixture
def desk(tmp_path):
    """A desk over a dataset with 60 photos."""
    store = Store.open(str(tmp_path / "dataset.lance"))
    store.upsert([sample(number + 20) for number in range(60)])
    return ReviewDesk(store, [], Leases(120.0), as_person=False)


@asynccontextmanager
async def listing(desk):
    """Let it list photos for the length of a block."""
    running = asyncio.create_task(desk.run())
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_list_is_made_while_the_earlier_one_is_handed_out(desk, monkeypatch):
    """At 100 000 photos a list takes seconds: only the first page, before any list, waits for one."""
    begun, go_on = threading.Event(), threading.Event()

    def slow(*arguments):
        begun.set()
        assert go_on.wait(DEADLINE_S)
        return listed_for_review(*arguments)

    async with listing(desk):
        assert len(await desk.next_photos(ADA, 5)) == 5
        monkeypatch.setattr(desks, "listed_for_review", slow)
        monkeypatch.setattr(desks, "_STALE_S", 0.0)
        desk.recorded("f" * 32)
        photos = await desk.next_photos(ADA, 5)
        assert await asyncio.to_thread(begun.wait, DEADLINE_S)
        assert len(photos) == len(await desk.next_photos(ADA, 5)) == 5
        go_on.set()
        await eventually(lambda: not desk._is_making)


async def test_a_dataset_that_cannot_be_read_is_an_error_only_without_a_list(desk, monkeypatch):
    """A waiting request gets the error, and the next one tries again; an earlier list is still handed out."""

    def fails(*_arguments):
        raise TransientError("no such disk")

    with monkeypatch.context() as broken:
        broken.setattr(desks, "listed_for_review", fails)
        async with listing(desk):
            with pytest.raises(TransientError, match="no such disk"):
                await desk.next_photos(ADA, 5)
    async with listing(desk):
        assert len(await desk.next_photos(ADA, 5)) == 5
        monkeypatch.setattr(desks, "listed_for_review", fails)
        monkeypatch.setattr(desks, "_STALE_S", 0.0)
        desk.recorded("f" * 32)
        assert len(await desk.next_photos(ADA, 5)) == 5
