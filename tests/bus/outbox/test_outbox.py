import asyncio
from contextlib import asynccontextmanager

import msgspec
import pytest

from bus.config import OutboxLimits
from bus.metrics import Counters
from bus.outbox.outbox import Outbox, OutboxFullError
from bus.outbox.sqlite import Database, StorageError
from schemas.errors import TransientError
from tests.conftest import eventually, fill

FAST = OutboxLimits(resend_first_s=0.02, resend_cap_s=0.05, window=4)


class Post:
    """The far side: keeps what was sent, and refuses or stays silent when told to."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []
        self.refuses = False

    async def publish(self, topic: str, payload: bytes) -> None:
        if self.refuses:
            raise TransientError("post", expected="to take it", got="a refusal")
        self.sent.append((topic, payload))

    async def connected(self, after: int) -> int:
        if after:
            await asyncio.Event().wait()
        return 1

    def payloads(self) -> set[bytes]:
        return {payload for _, payload in self.sent}


@asynccontextmanager
async def outbox_at(path, post, limits=FAST, **options):
    async with Database(path, {"outbox": Outbox.MIGRATIONS}) as database:
        outbox = Outbox(database, limits, Counters(), name="photo", **options)
        await outbox.load()
        sending = asyncio.create_task(outbox.run(post.publish, post.connected))
        try:
            yield outbox
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


async def test_a_message_is_sent_until_it_is_answered(tmp_path):
    """Only the answer ends the sending: before it comes, the message goes out again and again."""
    post = Post()
    async with outbox_at(tmp_path / "o.db", post) as outbox:
        await outbox.put("a", "t/a", b"one")
        await eventually(lambda: len(post.sent) >= 3)
        assert await outbox.mark_answered("a")
        await outbox.wait_until_empty()
        sent = len(post.sent)
        await outbox.put("b", "t/b", b"two")
        await eventually(lambda: ("t/b", b"two") in post.sent)
        assert [payload for _, payload in post.sent[sent:]].count(b"one") <= 1


async def test_a_slow_way_out_is_no_reason_to_send_twice(tmp_path):
    """A message that still waits for its turn to leave is not queued again, however often it is due."""
    post = Post()
    waiting: list[bytes] = []

    async def publish(_: str, payload: bytes) -> None:
        waiting.append(payload)
        await asyncio.Event().wait()

    post.publish = publish
    async with outbox_at(tmp_path / "o.db", post) as outbox:
        await outbox.put("a", "t", b"one")
        await eventually(lambda: outbox._schedule._entries["a"].attempts >= 4)
        assert waiting == [b"one"]


async def test_an_unanswered_message_outlives_the_process(tmp_path):
    """What a run left unanswered is sent by the next, as old messages are."""
    async with outbox_at(tmp_path / "o.db", Post()) as outbox:
        for number in range(10):
            await outbox.put(str(number), "t", b"%d" % number)
        await outbox.mark_answered("3")
    post = Post()
    async with outbox_at(tmp_path / "o.db", post) as outbox:
        assert len(outbox) == 9
        while len(outbox):
            await eventually(lambda: post.sent != [])
            _, payload = post.sent.pop()
            await outbox.mark_answered(payload.decode())
    async with outbox_at(tmp_path / "o.db", Post()) as outbox:
        assert len(outbox) == 0


async def test_a_message_is_sent_as_often_as_it_may_have_left(tmp_path):
    """Sendings that failed may have arrived; those of an earlier run are unknown, and count as two."""
    post, slow = Post(), OutboxLimits(resend_first_s=600, resend_cap_s=600)
    async with outbox_at(tmp_path / "o.db", post, slow) as outbox:
        await outbox.put("a", "t", b"one")
        await eventually(lambda: post.sent != [])
        assert [outbox.send_count(message_id) for message_id in ("a", "b")] == [1, 0]
    post.refuses = True
    async with outbox_at(tmp_path / "o.db", post) as outbox:
        assert outbox.send_count("a") == 2
        await eventually(lambda: outbox.send_count("a") >= 4)
        await outbox.mark_answered("a")
        assert outbox.send_count("a") == 0


async def test_an_answer_is_recorded_once(tmp_path):
    """The same answer twice is recorded once, in the transaction that takes the message out."""
    async with outbox_at(tmp_path / "o.db", Post()) as outbox:
        await outbox.put("a", "t", b"one")
        recorded = []
        outcomes = await asyncio.gather(
            *(outbox.mark_answered("a", lambda _: recorded.append("a")) for _ in range(5))
        )
        assert sorted(outcomes) == [False, False, False, False, True]
        assert recorded == ["a"]


async def test_the_same_id_is_accepted_once(tmp_path):
    """A message that waits already is not put a second time."""
    async with outbox_at(tmp_path / "o.db", Post()) as outbox:
        assert await outbox.put("a", "t", b"one")
        assert not await outbox.put("a", "t", b"another")
        assert len(outbox) == 1


async def test_a_full_outbox_refuses_loudly(tmp_path):
    """Full means an exception for the new message; those accepted stay."""
    limits = OutboxLimits(max_bytes=10, window=4)
    async with outbox_at(tmp_path / "o.db", Post(), limits) as outbox:
        await outbox.put("a", "t", b"12345678")
        with pytest.raises(OutboxFullError, match="10 bytes"):
            await outbox.put("b", "t", b"123")
        await outbox.mark_answered("a")
        assert await outbox.put("b", "t", b"123")


async def test_a_full_outbox_drops_the_oldest_if_told_so(tmp_path):
    """`drop-oldest` makes room by the oldest message that was not sent yet."""
    post = Post()
    post.refuses = True
    limits = OutboxLimits(max_messages=3, window=1, when_full="drop-oldest")
    async with outbox_at(tmp_path / "o.db", post, limits) as outbox:
        await outbox.put("sent", "t", b"0")
        await eventually(lambda: outbox.unanswered == 1)
        for name in "abc":
            await outbox.put(name, "t", name.encode())
        assert len(outbox) == 3
        post.refuses = False
        await outbox.mark_answered("sent")
        await eventually(lambda: b"b" in post.payloads())
        await outbox.mark_answered("b")
        await eventually(lambda: b"c" in post.payloads())
        assert b"a" not in post.payloads()


async def test_old_messages_are_marked(tmp_path):
    """What is sent later than `live_s` after it was made is marked as late."""
    async with outbox_at(tmp_path / "o.db", Post()) as outbox:
        await outbox.put("a", "t", b"one")
    post = Post()
    async with Database(tmp_path / "o.db", {"outbox": Outbox.MIGRATIONS}) as database:
        await database.run(lambda c: c.execute("UPDATE outbox SET created_ms = created_ms - 100000") and None)
    async with outbox_at(tmp_path / "o.db", post, transform_late=lambda payload: payload + b" late"):
        await eventually(lambda: b"one late" in post.payloads())


async def test_the_far_side_may_refuse(tmp_path):
    """A publish that fails is tried again; nothing is lost and nothing stops."""
    post = Post()
    post.refuses = True
    async with outbox_at(tmp_path / "o.db", post) as outbox:
        await outbox.put("a", "t", b"one")
        await eventually(lambda: outbox.unanswered == 1)
        post.refuses = False
        await eventually(lambda: b"one" in post.payloads())


async def test_a_second_owner_of_the_file_is_refused(tmp_path):
    """Two processes on one outbox would send everything twice: the second fails at once."""
    async with outbox_at(tmp_path / "o.db", Post()):
        with pytest.raises(TransientError, match="locked"):
            async with outbox_at(tmp_path / "o.db", Post()):
                pass


async def test_g3_a_nearly_full_disk_refuses_new_work_and_still_settles_the_old(small_disk):
    """With little room a message is refused and counted; those accepted can still be answered."""
    limits = msgspec.structs.replace(FAST, min_free_bytes=2_000_000)
    async with outbox_at(small_disk / "o.db", Post(), limits) as outbox:
        await outbox.put("a", "t", bytes(100_000))
        filler = fill(small_disk, leave_bytes=1_500_000)
        with pytest.raises(OutboxFullError, match="bytes free on its disk"):
            await outbox.put("b", "t", b"two")
        assert outbox._counters["photo.refused_disk_full"] == 1
        assert await outbox.mark_answered("a")
        filler.unlink()
        assert await outbox.put("b", "t", b"two")


async def test_g3_a_full_disk_loses_nothing_that_was_accepted(small_disk):
    """When writing fails for want of space, what was accepted before is still there afterwards."""
    limits = msgspec.structs.replace(FAST, min_free_bytes=0)
    async with outbox_at(small_disk / "o.db", Post(), limits) as outbox:
        for number in range(20):
            await outbox.put(str(number), "t", bytes(50_000))
        filler = fill(small_disk, leave_bytes=200_000)
        puts = [outbox.put(str(number), "t", bytes(50_000)) for number in range(20, 200)]
        refused = await asyncio.gather(*puts, return_exceptions=True)
        assert any(isinstance(error, StorageError) for error in refused)
        accepted = len(outbox)
        filler.unlink()
    async with outbox_at(small_disk / "o.db", Post(), limits) as outbox:
        assert len(outbox) == accepted
        assert accepted >= 20
