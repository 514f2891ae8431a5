import asyncio
import threading
from contextlib import asynccontextmanager

import msgspec
import pytest

from bus.config import OutboxLimits
from bus.metrics import Counters
from bus.outbox.outbox import Outbox, OutboxFullError
from bus.outbox.overdue import report_overdue
from bus.outbox.sqlite import Database, StorageError
from schemas.errors import TransientError
from tests.conftest import DEADLINE_S, eventually, fill

FAST = OutboxLimits(resend_first_s=0.02, resend_cap_s=0.05, window=4)


class Receiver:
    """A receiver that records what was published, never answers, and can refuse."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []
        self.refuses = False

    async def publish(self, topic: str, payload: bytes) -> None:
        if self.refuses:
            raise TransientError("refused on purpose")
        self.sent.append((topic, payload))

    async def connected(self, after: int) -> int:
        if after:
            await asyncio.Event().wait()
        return 1

    def payloads(self) -> set[bytes]:
        return {payload for _, payload in self.sent}


@asynccontextmanager
async def outbox_at(path, receiver, limits=FAST, **options):
    async with Database(path, {"outbox": Outbox.MIGRATIONS}) as database:
        outbox = Outbox(database, limits, Counters(), name="photo", **options)
        await outbox.load()
        sending = asyncio.create_task(outbox.run(receiver.publish, receiver.connected))
        try:
            yield outbox
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


async def test_a_message_is_sent_until_it_is_answered(tmp_path):
    """A message is sent again and again until its answer arrives."""
    receiver = Receiver()
    async with outbox_at(tmp_path / "o.db", receiver) as outbox:
        await outbox.put("a", "t/a", b"one")
        await eventually(lambda: len(receiver.sent) >= 3)
        assert await outbox.mark_answered("a")
        await outbox.wait_until_empty()
        sent = len(receiver.sent)
        await outbox.put("b", "t/b", b"two")
        await eventually(lambda: ("t/b", b"two") in receiver.sent)
        assert [payload for _, payload in receiver.sent[sent:]].count(b"one") <= 1


async def test_a_message_without_an_answer_is_overdue(tmp_path):
    """A message that is sent again and again degrades the component, with its id, until it is answered."""
    receiver, reported = Receiver(), []

    async def report(part: str, *reason: str) -> None:
        reported.append((part, *reason))

    async with outbox_at(tmp_path / "o.db", receiver) as outbox:
        await outbox.put("a", "t", b"one")
        assert outbox.overdue(3600) is None
        await eventually(lambda: outbox.overdue(0) is not None and outbox.send_count("a") > 2)
        assert "photo a was sent" in outbox.overdue(0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("bus.outbox.overdue.OVERDUE_S", 0.0)
            patch.setattr("bus.outbox.overdue._CHECK_S", 0.01)
            reporting = asyncio.create_task(report_overdue(outbox, report, report))
            await eventually(lambda: any(len(each) == 2 for each in reported))
            await outbox.mark_answered("a")
            await eventually(lambda: len(reported[-1]) == 1)
            reporting.cancel()


async def test_a_slow_publish_is_not_repeated(tmp_path):
    """A message that is being published is not queued again, however often it becomes due."""
    receiver = Receiver()
    waiting: list[bytes] = []

    async def publish(_: str, payload: bytes) -> None:
        waiting.append(payload)
        await asyncio.Event().wait()

    receiver.publish = publish
    async with outbox_at(tmp_path / "o.db", receiver) as outbox:
        await outbox.put("a", "t", b"one")
        await eventually(lambda: outbox._schedule._entries["a"].attempts >= 4)
        assert waiting == [b"one"]


async def test_unanswered_messages_survive_a_restart(tmp_path):
    """Messages without an answer are sent by the next run."""
    async with outbox_at(tmp_path / "o.db", Receiver()) as outbox:
        for number in range(10):
            await outbox.put(str(number), "t", b"%d" % number)
        await outbox.mark_answered("3")
    receiver = Receiver()
    async with outbox_at(tmp_path / "o.db", receiver) as outbox:
        assert len(outbox) == 9
        while len(outbox):
            await eventually(lambda: receiver.sent != [])
            _, payload = receiver.sent.pop()
            await outbox.mark_answered(payload.decode())
    async with outbox_at(tmp_path / "o.db", Receiver()) as outbox:
        assert len(outbox) == 0


async def test_the_send_count_includes_possible_sends(tmp_path):
    """Failed publishes count, because they may have arrived; those of an earlier run count as two."""
    receiver, slow = Receiver(), OutboxLimits(resend_first_s=600, resend_cap_s=600)
    async with outbox_at(tmp_path / "o.db", receiver, slow) as outbox:
        await outbox.put("a", "t", b"one")
        await eventually(lambda: receiver.sent != [])
        assert [outbox.send_count(message_id) for message_id in ("a", "b")] == [1, 0]
    receiver.refuses = True
    async with outbox_at(tmp_path / "o.db", receiver) as outbox:
        assert outbox.send_count("a") == 2
        await eventually(lambda: outbox.send_count("a") >= 4)
        await outbox.mark_answered("a")
        assert outbox.send_count("a") == 0


async def test_an_outbox_is_not_empty_while_a_message_is_stored(tmp_path):
    """`wait_until_empty` does not return between the commit of a message and its answer."""
    receiver = Receiver()
    async with outbox_at(tmp_path / "o.db", receiver) as outbox:
        item = await outbox.admit("a", "t", b"one")
        waiting = asyncio.create_task(outbox.wait_until_empty())
        await outbox._database.run(lambda connection: outbox.write(connection, item))
        outbox.commit(item)
        await eventually(lambda: receiver.sent != [])
        assert not waiting.done()
        await outbox.mark_answered("a")
        await waiting


async def test_an_answer_is_recorded_once(tmp_path):
    """Of several equal answers one is recorded, in the transaction that removes the message."""
    async with outbox_at(tmp_path / "o.db", Receiver()) as outbox:
        await outbox.put("a", "t", b"one")
        recorded = []
        outcomes = await asyncio.gather(
            *(outbox.mark_answered("a", lambda _: recorded.append("a")) for _ in range(5))
        )
        assert sorted(outcomes) == [False, False, False, False, True]
        assert recorded == ["a"]


async def test_the_same_id_is_accepted_once(tmp_path):
    """A message whose id is already in the outbox is not stored again."""
    async with outbox_at(tmp_path / "o.db", Receiver()) as outbox:
        assert await outbox.put("a", "t", b"one")
        assert not await outbox.put("a", "t", b"another")
        assert len(outbox) == 1


async def test_a_full_outbox_raises(tmp_path):
    """A full outbox raises OutboxFullError for a new message; the others stay."""
    limits = OutboxLimits(max_bytes=10, window=4)
    async with outbox_at(tmp_path / "o.db", Receiver(), limits) as outbox:
        await outbox.put("a", "t", b"12345678")
        with pytest.raises(OutboxFullError, match="of 10 bytes"):
            await outbox.put("b", "t", b"123")
        await outbox.mark_answered("a")
        assert await outbox.put("b", "t", b"123")


async def test_a_full_outbox_drops_the_oldest_if_configured(tmp_path):
    """With `drop-oldest`, a full outbox drops the oldest unsent message."""
    receiver = Receiver()
    receiver.refuses = True
    limits = OutboxLimits(max_messages=3, window=1, when_full="drop-oldest")
    async with outbox_at(tmp_path / "o.db", receiver, limits) as outbox:
        await outbox.put("sent", "t", b"0")
        await eventually(lambda: outbox.unanswered == 1)
        for name in "abc":
            await outbox.put(name, "t", name.encode())
        assert len(outbox) == 3
        receiver.refuses = False
        await outbox.mark_answered("sent")
        await eventually(lambda: b"b" in receiver.payloads())
        await outbox.mark_answered("b")
        await eventually(lambda: b"c" in receiver.payloads())
        assert b"a" not in receiver.payloads()


async def test_nothing_is_dropped_for_a_message_that_cannot_fit(tmp_path):
    """A message larger than the outbox, or than what the sent ones leave, is refused; none is dropped."""
    limits = OutboxLimits(max_bytes=10, window=1, when_full="drop-oldest")
    async with outbox_at(tmp_path / "o.db", Receiver(), limits) as outbox:
        await outbox.put("sent", "t", b"0123")
        await eventually(lambda: outbox.unanswered == 1)
        await outbox.put("waits", "t", b"45")
        for size_bytes in (11, 7):
            with pytest.raises(OutboxFullError, match=f"no room for {size_bytes} bytes"):
                await outbox.put("large", "t", bytes(size_bytes))
        assert len(outbox) == 2
        assert await outbox.put("fits", "t", bytes(6))  # in the place of the one that waits
        assert len(outbox) == 2


async def test_a_dropped_message_is_not_sent_meanwhile(tmp_path):
    """While the row of the oldest one is deleted, the next place of the window goes to another message."""
    receiver, limits = Receiver(), OutboxLimits(max_messages=3, window=1, when_full="drop-oldest")
    busy, answering, deleting = threading.Event(), threading.Event(), threading.Event()
    async with outbox_at(tmp_path / "o.db", receiver, limits) as outbox:
        for name in ("sent", "a", "b"):
            await outbox.put(name, "t", name.encode())
        await eventually(lambda: receiver.payloads() == {b"sent"})
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(
                outbox.mark_answered("sent", lambda _: busy.set() or answering.wait(DEADLINE_S))
            )
            await eventually(busy.is_set)
            tasks.create_task(outbox.put("c", "t", b"c"))
            tasks.create_task(outbox._database.run(lambda _: deleting.wait(DEADLINE_S)))
            await eventually(lambda: outbox._database._jobs.qsize() == 2)
            answering.set()
            await eventually(lambda: len(receiver.sent) == 2)
            deleting.set()
        assert receiver.payloads() == {b"sent", b"b"}
        assert len(outbox) == 2


@pytest.mark.parametrize("looked", [False, True], ids=["at once", "after others looked for the next one"])
async def test_a_message_that_could_not_be_dropped_is_sent_once(tmp_path, monkeypatch, looked):
    """While the disk fails, the oldest message keeps its place."""
    receiver, limits = Receiver(), OutboxLimits(max_messages=4, window=2, when_full="drop-oldest")
    async with outbox_at(tmp_path / "o.db", receiver, limits) as outbox:
        for name in ("1", "2", "a", "b"):
            await outbox.put(name, "t", name.encode())
        await eventually(lambda: receiver.payloads() == {b"1", b"2"})

        async def fail(_: object) -> None:
            if looked:
                outbox._schedule.oldest_unsent()
            raise StorageError("on purpose")

        with monkeypatch.context() as failing:
            failing.setattr(outbox._database, "run", fail)
            with pytest.raises(StorageError, match="on purpose"):
                await outbox.put("c", "t", b"c")
        for name, following in (("1", b"a"), ("2", b"b")):
            await outbox.mark_answered(name)
            await eventually(lambda following=following: following in receiver.payloads())
        assert [payload for _, payload in receiver.sent[2:]] == [b"a", b"b"]
        assert (len(outbox), outbox.size_bytes, outbox.unanswered) == (2, 2, 2)


async def test_one_id_is_accepted_once_while_room_is_made(tmp_path):
    """Of two callers with the same id, one stores the message, and one older message makes room for it."""
    limits = OutboxLimits(max_messages=3, window=1, when_full="drop-oldest")
    async with outbox_at(tmp_path / "o.db", Receiver(), limits) as outbox:
        for name in ("sent", "a", "b"):
            await outbox.put(name, "t", name.encode())
            await eventually(lambda: outbox.unanswered == 1)
        accepted = await asyncio.gather(*(outbox.put("c", "t", b"c") for _ in range(2)))
        assert sorted(accepted) == [False, True]
        assert len(outbox) == 3


async def test_a_folder_that_is_gone_refuses_new_messages(tmp_path):
    """Where the free space cannot be asked for, a new message is refused by a StorageError."""
    (tmp_path / "state").mkdir()
    async with outbox_at(tmp_path / "state/o.db", Receiver()) as outbox:
        (tmp_path / "state").rename(tmp_path / "moved")
        with pytest.raises(StorageError, match="state: No such file"):
            await outbox.put("a", "t", b"one")


async def test_late_messages_are_transformed(tmp_path):
    """A message sent later than `live_s` after its creation passes through `transform_late`."""
    async with outbox_at(tmp_path / "o.db", Receiver()) as outbox:
        await outbox.put("a", "t", b"one")
    receiver = Receiver()
    async with Database(tmp_path / "o.db", {"outbox": Outbox.MIGRATIONS}) as database:
        await database.run(lambda c: c.execute("UPDATE outbox SET created_ms = created_ms - 100000") and None)
    async with outbox_at(tmp_path / "o.db", receiver, transform_late=lambda payload: payload + b" late"):
        await eventually(lambda: b"one late" in receiver.payloads())


async def test_a_failed_publish_is_repeated(tmp_path):
    """A publish that raises TransientError is repeated until it succeeds."""
    receiver = Receiver()
    receiver.refuses = True
    async with outbox_at(tmp_path / "o.db", receiver) as outbox:
        await outbox.put("a", "t", b"one")
        await eventually(lambda: outbox.unanswered == 1)
        receiver.refuses = False
        await eventually(lambda: b"one" in receiver.payloads())


async def test_a_second_process_cannot_open_the_file(tmp_path):
    """A second opener of the same file fails at once; otherwise both would send everything."""
    async with outbox_at(tmp_path / "o.db", Receiver()):
        with pytest.raises(TransientError, match="locked"):
            async with outbox_at(tmp_path / "o.db", Receiver()):
                pass


async def test_g3_a_nearly_full_disk_refuses_new_messages_only(small_disk):
    """G3: with little free space new messages are refused and counted, and stored ones can be answered."""
    limits = msgspec.structs.replace(FAST, min_free_bytes=2_000_000)
    async with outbox_at(small_disk / "o.db", Receiver(), limits) as outbox:
        await outbox.put("a", "t", bytes(100_000))
        filler = fill(small_disk, leave_bytes=1_500_000)
        with pytest.raises(OutboxFullError, match="bytes are free on its disk"):
            await outbox.put("b", "t", b"two")
        assert outbox._counters["photo.refused_disk_full"] == 1
        assert await outbox.mark_answered("a")
        filler.unlink()
        assert await outbox.put("b", "t", b"two")


async def test_g3_a_full_disk_loses_nothing_that_was_accepted(small_disk):
    """G3: when writing fails for lack of space, the messages accepted before are still there afterwards."""
    limits = msgspec.structs.replace(FAST, min_free_bytes=0)
    async with outbox_at(small_disk / "o.db", Receiver(), limits) as outbox:
        for number in range(20):
            await outbox.put(str(number), "t", bytes(50_000))
        filler = fill(small_disk, leave_bytes=200_000)
        puts = [outbox.put(str(number), "t", bytes(50_000)) for number in range(20, 200)]
        refused = await asyncio.gather(*puts, return_exceptions=True)
        assert any(isinstance(error, StorageError) for error in refused)
        accepted = len(outbox)
        filler.unlink()
    async with outbox_at(small_disk / "o.db", Receiver(), limits) as outbox:
        assert len(outbox) == accepted
        assert accepted >= 20
