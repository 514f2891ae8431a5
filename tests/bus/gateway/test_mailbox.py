import asyncio
import time
from collections import Counter

import pytest

from bus.gateway.mailbox import Mailbox, PendingMessage


@pytest.fixture
def counts() -> Counter[str]:
    return Counter()


def desk(most: int, counts: Counter[str]) -> Mailbox:
    return Mailbox(most, lambda what: counts.update([what]))


async def test_letters_leave_in_order_of_arrival_and_stay_until_done(counts):
    """A letter whose sending failed is the next one again."""
    two = desk(8, counts)
    first, second = PendingMessage("t", b"1"), PendingMessage("t", b"2")
    two.put(first)
    two.put(second)
    assert await two.head() is first
    assert await two.head() is first
    two.done(first)
    assert await two.head() is second


async def test_where_one_counts_the_newest_takes_the_place_of_the_one_under_way(counts):
    """A policy that was overtaken while it was sent does not take the newer one with it."""
    policy = desk(1, counts)
    old, new = PendingMessage("t", b"old"), PendingMessage("t", b"new")
    policy.put(old)
    under_way = await policy.head()
    policy.put(new)
    policy.done(under_way)
    assert await policy.head() is new
    assert counts["dropped"] == 1


async def test_g3_a_full_desk_drops_the_oldest_and_counts_it(counts):
    """G3: what waits for a node that is away is bounded."""
    full = desk(3, counts)
    for number in range(10):
        full.put(PendingMessage("t", b"%d" % number))
    assert (len(full), counts["dropped"]) == (3, 7)
    assert (await full.head()).payload == b"7"


async def test_what_expired_is_dropped_and_counted(counts):
    """A command that nobody wants any more is not sent."""
    commands = desk(8, counts)
    commands.put(PendingMessage("t", b"late", expires_at=time.monotonic() - 1))
    commands.put(PendingMessage("t", b"in time", expires_at=time.monotonic() + 60))
    assert (await commands.head()).payload == b"in time"
    assert counts["expired"] == 1


async def test_the_last_letter_can_be_sent_again_unless_it_was_taken_back(counts):
    """What lasts is sent again when a node returns, and what was cleared is not."""
    policy = desk(1, counts)
    policy.again()
    assert len(policy) == 0
    policy.put(letter := PendingMessage("t", b"1"))
    policy.done(letter)
    policy.again()
    policy.again()
    assert (await policy.head(), len(policy)) == (letter, 1)
    policy.clear()
    policy.again()
    assert len(policy) == 0


async def test_a_rest_ends_early_when_the_node_is_there(counts):
    """Whoever waits for the next attempt goes on as soon as the node returns."""
    waiting = desk(1, counts)
    rest = asyncio.create_task(waiting.rest(3600))
    await asyncio.sleep(0)
    waiting.hurry()
    async with asyncio.timeout(10):
        await rest
