"""Rules of console/review/label_sender.py: no label is lost, whenever console or broker end."""

import asyncio
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager

import pytest
from msgspec import structs

from bus.config import Broker, OutboxLimits
from bus.mqtt.client import Bus
from bus.mqtt.presence import Presence
from bus.outbox.outbox import Outbox
from bus.outbox.sqlite import Database
from console.access.audit_trail import AuditTrail, Entry
from console.review.label_sender import HELD_MIGRATIONS, LabelSender, label_id
from schemas.messages import Event, Feedback, Result
from schemas.topics import CLOUD
from tests.conftest import ROOT, eventually
from tests.console.access.test_access import Client
from tests.console.conftest import running_console


class Elsewhere:
    """A console as its own process, in addition to the fixture's.

    Args:
        url: Its address without a path.
    """

    def __init__(self, url: str) -> None:
        self.url = url


@contextmanager
def own_process(console, *words: str, undo_s: float = 600):
    """Run `gleaner console` until the block ends, and then kill it as a power cut would.

    Args:
        console: The one of the fixture.
        words: Further options.
        undo_s: Longer than any test: its labels can still be taken back; 0: they are sent at once.
    """
    config = console.folder / "second.toml"
    config.write_text(f"undo_s = {undo_s}\n")
    command = [
        sys.executable, "-m", "cli.main", "console", "--config", str(config), "--name", "console-2",
        "--listen", "127.0.0.1:0", "--broker", f"127.0.0.1:{console.broker.port}",
        "--dataset", console.config.dataset,
        "--state-dir", str(console.folder / "second"), *words,
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().removeprefix("console: ").strip()
    finally:
        process.kill()
        process.communicate()


def photos_of(console) -> list[str]:
    """Return the ids of all samples."""
    return [str(row["photo_id"]) for row in console.store.scan(["photo_id"])]


def give(address: str, photos: list[str]) -> None:
    """Label photos in the console that has just printed its address; each is answered."""
    client = Client(Elsewhere(address.partition("/?")[0]))
    client.ask("GET", f"/?{address.partition('?')[2]}")
    token = client.csrf()
    for photo in photos:
        fields = {"photo": photo, "label": "cat", "csrf": token}
        assert client.ask("POST", "/review/label", fields)[0] == 303


def test_a_killed_console_loses_no_label(tmp_path, mosquitto):
    """Neither one that could still be taken back, nor one on its way; nothing else stops."""
    with running_console(tmp_path, mosquitto, samples=6) as console:
        held, sent = photos_of(console)[:3], photos_of(console)[3:]
        with own_process(console) as address:
            give(address, held)
        assert console.labels() == {}
        with own_process(console, undo_s=0) as address:
            console.wait_until(lambda: console.labels().keys() == set(held))
            give(address, sent)
            # Killed at once: some are on the disk alone, some at the broker, some stored and not answered.
        with own_process(console):
            console.wait_until(lambda: console.labels().keys() == {*held, *sent})
        assert console.answer() in console.call(answers(console))


async def answers(console) -> list[Result]:
    """Wait until the other console has an answer, and return its answers."""
    await eventually(lambda: list(console.shown.live.latest()))
    return list(console.shown.live.latest())


def test_only_a_collector_ends_the_way_of_a_label(tmp_path, mosquitto):
    """An edge, which reads each label of its photos, cannot have one taken for recorded."""
    with running_console(tmp_path, mosquitto, samples=3) as console:
        sender, photo = console.shown.desk.sender, photos_of(console)[0]
        given = Feedback(photo_id=photo, node="edge-1", device="pi-1", label="cat", by="ada", at_ms=7)
        sender._sent["1"] = given
        facts = {"photo_id": photo, "label": "cat", "by": "ada", "at_ms": 7, "outcome": "stored"}
        told = Event(node="edge-1", name="edge", event="feedback.recorded", at_ms=8, facts=facts)
        sender.take_event(told)
        assert sender._sent == {"1": given}
        assert photo not in console.shown.desk._labelled
        console.call(later(sender.take_event, structs.replace(told, node="cloud", name="collector")))
        assert sender._sent == {}


async def later(act, *arguments: object) -> None:
    """Do something in the loop of the console."""
    act(*arguments)


def test_labels_wait_for_the_broker(tmp_path, mosquitto):
    """While the broker is away, labels are taken; they arrive once it is back."""
    with running_console(tmp_path, mosquitto, samples=3) as console:
        console.broker.stop()
        client = Client(console)
        client.ask("GET", f"/?{console.address.partition('?')[2]}")
        fields = {"photo": photos_of(console)[0], "label": "dog", "csrf": client.csrf()}
        assert client.ask("POST", "/review/label", fields)[0] == 303
        assert len(console.shown.desk.sender) == 1
        console.broker.start()
        console.wait_until(lambda: len(console.labels()) == 1)
        console.wait_until(lambda: len(console.shown.desk.sender) == 0)


@asynccontextmanager
async def sender_on(folder):
    """A sender that is never connected, and its database."""
    bus = Bus(Broker(), "labels", presence=Presence(CLOUD, "console"))
    tables = {"outbox": Outbox.MIGRATIONS, "held_label": HELD_MIGRATIONS, "audit": AuditTrail.MIGRATIONS}
    async with Database(folder / "console.db", tables) as database:
        made = LabelSender(database, bus, OutboxLimits(), undo_s=0, on_recorded=lambda *_: None)
        yield made, database, bus


GIVEN = Feedback(photo_id="1" * 32, node=CLOUD, device="console", label="cat", by="ada", at_ms=7)
RECORDED = {"photo_id": "1" * 32, "label": "cat", "by": "ada", "at_ms": 7, "outcome": "stored"}


def entry() -> Entry:
    return Entry.made(1, "ada", "", "label.given", {})


async def test_a_label_that_was_recorded_while_the_disk_failed_leaves_it(tmp_path):
    """The console continues and logs why; the event arrived only once, and is not lost."""
    async with sender_on(tmp_path) as (sender, database, bus):
        task = asyncio.create_task(sender.run())
        await sender.give([GIVEN], entry())
        await eventually(lambda: bool(sender._sent))
        fail = "CREATE TRIGGER fails BEFORE DELETE ON outbox BEGIN SELECT RAISE(ABORT, 'disk I/O error'); END"
        await database.run(lambda connection: connection.execute(fail) and None)
        sender.take_event(
            Event(node=CLOUD, name="collector", event="feedback.recorded", at_ms=8, facts=RECORDED)
        )
        await eventually(lambda: task.done() or bus.status().state == "degraded")
        assert not task.done()
        assert "disk I/O error" in (bus.status().reason or "")
        await database.run(lambda connection: connection.execute("DROP TRIGGER fails") and None)
        await eventually(lambda: len(sender) == 0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("payload", [b"", b"\xff", b"{}", "text", 7])
async def test_a_damaged_label_costs_itself(tmp_path, payload):
    """It is set aside at the next start, and the others are sent."""
    other = structs.replace(GIVEN, photo_id="2" * 32)
    async with sender_on(tmp_path) as (sender, database, _):
        await sender.give([GIVEN, other], entry())
        broken = label_id(GIVEN.photo_id, "cat", "ada", 7)
        await database.run(
            lambda connection: (
                connection.execute("UPDATE held_label SET payload = ? WHERE id = ?", (payload, broken))
                and None
            )
        )
    async with sender_on(tmp_path) as (sender, database, _):
        await sender.load()
        assert [one.feedback for one in sender._held.values()] == [other]
        aside = await database.run(
            lambda connection: connection.execute("SELECT source FROM damaged_row").fetchall()
        )
        assert aside == [("held_label",)]
