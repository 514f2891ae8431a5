"""Rules of console/review/label_sender.py: no label is lost, whenever console or broker end."""

import subprocess
import sys
from contextlib import contextmanager

from tests.conftest import ROOT
from tests.console.access.test_access import Client
from tests.console.conftest import running_console


class Elsewhere:
    """A console as a process of its own, beside the one of the fixture.

    Args:
        url: Its address without a path.
    """

    def __init__(self, url: str) -> None:
        self.url = url


@contextmanager
def own_process(console, *words: str):
    """Run `gleaner console` until the block ends, and then kill it as a power cut would."""
    config = console.folder / "second.toml"
    config.write_text("undo_s = 600\n")  # longer than any test: its labels can still be taken back
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


def test_a_killed_console_loses_no_label(tmp_path, mosquitto):
    """Labels that could still be taken back when it was killed are sent by the next run."""
    with running_console(tmp_path, mosquitto, samples=6) as console:
        wanted = photos_of(console)[:4]
        with own_process(console) as address:
            client = Client(Elsewhere(address.partition("/?")[0]))
            client.ask("GET", f"/?{address.partition('?')[2]}")
            token = client.csrf()
            for photo in wanted:
                fields = {"photo": photo, "label": "cat", "csrf": token}
                assert client.ask("POST", "/review/label", fields)[0] == 303
        with own_process(console):
            console.wait_until(lambda: console.labels().keys() == set(wanted))


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
