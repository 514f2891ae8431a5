"""Rules of console/review/label_sender.py: no label is lost, whenever console or broker end."""

import subprocess
import sys
from contextlib import contextmanager

from msgspec import structs

from schemas.messages import Event, Feedback, Result
from tests.conftest import ROOT, eventually
from tests.console.access.test_access import Client
from tests.console.conftest import running_console


class Elsewhere:
    """A console as its own process, beside the one of the fixture.

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
