import asyncio
import time
from collections import Counter

import pytest

from bus.gateway.mailbox import Mailbox, PendingMessage
from tests.conftest import DEADLINE_S


@pytest.fixture
def counts() -> Counter[str]:
    return Counter()


def make_mailbox(max_messages: int, counts: Counter[str]) -> Mailbox:
    return Mailbox(max_messages, lambda event: counts.update([event]))


async def test_messages_are_returned_in_order_until_removed(counts):
    """`first` returns the oldest message, again and again until it is removed."""
    mailbox = make_mailbox(8, counts)
    first, second = PendingMessage("t", b"1"), PendingMessage("t", b"2")
    mailbox.put(first)
    mailbox.put(second)
    assert await mailbox.first() is first
    assert await mailbox.first() is first
    mailbox.remove(first)
    assert await mailbox.first() is second


async def test_removing_a_sent_message_keeps_a_newer_one(counts):
    """Removing a message that was replaced while it was being sent does not remove its replacement."""
    mailbox = make_mailbox(1, counts)
    old, new = PendingMessage("t", b"old"), PendingMessage("t", b"new")
    mailbox.put(old)
    being_sent = await mailbox.first()
    mailbox.put(new)
    mailbox.remove(being_sent)
    assert await mailbox.first() is new
    assert counts["dropped"] == 1


async def test_g3_a_full_mailbox_drops_the_oldest_and_counts_it(counts):
    """G3: the messages that wait for an offline node are bounded."""
    mailbox = make_mailbox(3, counts)
    for number in range(10):
        mailbox.put(PendingMessage("t", b"%d" % number))
    assert (len(mailbox), counts["dropped"]) == (3, 7)
    assert (await mailbox.first()).payload == b"7"


async def test_expired_messages_are_dropped_and_counted(counts):
    """An expired message is not returned."""
    mailbox = make_mailbox(8, counts)
    mailbox.put(PendingMessage("t", b"late", expires_at=time.monotonic() - 1))
    mailbox.put(PendingMessage("t", b"in time", expires_at=time.monotonic() + 60))
    assert (await mailbox.first()).payload == b"in time"
    assert counts["expired"] == 1


async def test_the_last_message_can_be_sent_again_until_cleared(counts):
    """`put_last_again` queues the last message again; after `clear` it does nothing."""
    mailbox = make_mailbox(1, counts)
    mailbox.put_last_again()
    assert len(mailbox) == 0
    mailbox.put(message := PendingMessage("t", b"1"))
    mailbox.remove(message)
    mailbox.put_last_again()
    mailbox.put_last_again()
    assert (await mailbox.first(), len(mailbox)) == (message, 1)
    mailbox.clear()
    mailbox.put_last_again()
    assert len(mailbox) == 0


async def test_retry_now_ends_the_wait_before_a_retry(counts):
    """`wait_before_retry` returns as soon as `retry_now` is called."""
    mailbox = make_mailbox(1, counts)
    waiting = asyncio.create_task(mailbox.wait_before_retry(3600))
    await asyncio.sleep(0)
    mailbox.retry_now()
    async with asyncio.timeout(DEADLINE_S):
        await waiting
