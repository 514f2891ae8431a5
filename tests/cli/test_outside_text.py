"""Text that devices, edges and file names bring reaches no terminal as control characters."""

import ast
import asyncio
import json
import os
from pathlib import Path

import pytest

from bus.mqtt.client import Bus
from bus.mqtt.presence import Presence
from cli.cloud.label_keys import Session
from cli.cloud.label_session import screen
from cloud.dataset.dead_letters import Bounds, DeadLetter, DeadLetterTable
from cloud.dataset.store import Row, Store
from cloud.labeling.key_bindings import key_bindings
from cloud.labeling.review_queue import ReviewItem
from schemas.messages import Event, ServedModel
from schemas.topics import EVENT
from tests.cli.conftest import gleaner
from tests.conftest import DEADLINE_S, ROOT, jpeg, running
from tests.device.conftest import NODE, result
from tests.schemas.test_text import HOSTILE as HOSTILE_NAME

HOSTILE = HOSTILE_NAME.replace("\udce9", "")  # a message cannot contain the byte of a file name
PROBE = "31m\\x00"
"""Part of the hostile text that shows that it was printed, escaped."""


def assert_inert(*texts: str) -> None:
    """Every line that a command printed has only printable characters."""
    for text in texts:
        assert all(line.isprintable() for line in text.split("\n")), text


@pytest.fixture
def dataset(tmp_path):
    """A dataset whose labels and dead letters are hostile."""
    store = Store.open(tmp_path / "dataset")
    facts = {"width": 160, "height": 120, "received_at_ms": 1, "node": NODE, "device": "pi-1"}
    rows = [
        Row(photo_id=f"{number}" * 32, image=jpeg(number), lane="hard", edge_label=HOSTILE, **facts)
        for number in range(2)
    ]
    store.upsert(rows)
    letter = DeadLetter(photo_id=None, node=NODE, reason=HOSTILE, received_at_ms=1, payload=b"x")
    DeadLetterTable.open(tmp_path / "dataset").put([letter], Bounds(100, 1000))
    return tmp_path / "dataset"


async def test_commands_on_the_bus_print_it_escaped(edge, address, at, tmp_path):
    """`doctor`, `cloud status`, `tail` and `send` escape the texts of statuses, events and results."""
    edge.reply = lambda photo: [result(photo, label=HOSTILE)]
    bus = Bus(address, "hostile", presence=Presence(NODE, "edge"))
    served = ServedModel(name="pets", version=3, state="failed", reason=HOSTILE)
    await bus.report(model=served)
    await bus.report_degraded("predict", HOSTILE)
    photo = tmp_path / "x.jpg"
    photo.write_bytes(jpeg(1))
    async with running(bus), asyncio.timeout(DEADLINE_S):
        tails = [
            asyncio.create_task(gleaner("tail", f"event/{NODE}/#", "--count", "1", *more, *at))
            for more in ((), ("--json",))
        ]

        async def announce() -> None:
            event = Event(node=NODE, name="edge", event="model.failed", at_ms=1, facts={"reason": HOSTILE})
            while not all(tail.done() for tail in tails):
                await bus.publish(EVENT, event, node=NODE, name="edge")
                await asyncio.wait(tails, timeout=0.2)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(announce())
            others = [
                tasks.create_task(gleaner(*words, *at))
                for words in (
                    ("send", photo),
                    ("send", photo, "--name", "b", "--json"),
                    ("cloud", "status", "--dataset", tmp_path / "none"),
                    ("cloud", "status", "--dataset", tmp_path / "none", "--json"),
                    ("doctor", "--timeout", "2"),
                )
            ]
    done = [task.result() for task in (*tails, *others)]
    for command in done:
        assert_inert(command.out, command.err)
    as_text = "".join(done[index].out for index in (0, 2, 4, 6)).replace("\n", "")
    assert as_text.count("owned") >= 4
    for index in (1, 3, 5):
        assert (
            HOSTILE in str(json.loads(done[index].out)).encode().decode("unicode_escape")
            or "owned" in done[index].out
        )
        assert done[index].out.isascii()


def test_listings_of_the_dataset_print_it_escaped(called, dataset, tmp_path):
    """`review` and `review --dead-letters` escape labels and reasons, as text and as JSON."""
    for more in ((), ("--json",), ("--dead-letters",), ("--dead-letters", "--json")):
        done = called("cloud", "review", "--dataset", dataset, *more)
        assert_inert(done.out, done.err)
        assert "owned" in done.out
        if "--json" in more:
            assert HOSTILE in json.loads(done.out.splitlines()[0]).values()


def test_the_labelling_screen_prints_it_escaped():
    """Labels, class names and the typed text are escaped, and no control character becomes a key."""
    keys = key_bindings(["cat", HOSTILE, "\u202eodd"])
    assert all(key.isprintable() for key in keys)
    item = ReviewItem(
        photo_id="0" * 32,
        image=jpeg(1),
        received_at_ms=1,
        node=NODE,
        device="pi-1",
        edge_label=HOSTILE,
        teacher_label=HOSTILE,
        lane=HOSTILE,
        confidence=0.5,
    )
    for session in (Session(keys, range(1)), Session(keys, range(1), typed=HOSTILE)):
        picture_end = "\x1b[0m\n"
        text = screen(session, [item], os.terminal_size((80, 8))).rpartition(picture_end)[2]
        assert_inert(text)
        assert PROBE in text


def hostile_folder(tmp_path: Path) -> Path:
    """A class folder with photos of hostile names: not UTF-8, control characters, an option, very long."""
    folder = tmp_path / "pets" / "cat"
    folder.mkdir(parents=True)
    names = (
        "caf\udce9",
        "\x1b]0;owned\x07",
        "\u202egpj\u2028",
        "two\nlines",
        "-rf",
        "%41 #?&",
        "l" * 250,
        "Kä🐈",
    )
    for number, name in enumerate(names):
        (folder / f"{name}.jpg").write_bytes(jpeg(number))
    (folder / "empty\udcff.jpg").touch()
    (folder / "empty\x1b.jpg").touch()
    return folder


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
async def test_file_names_of_any_bytes_are_sent_and_imported(edge, at, tmp_path, monkeypatch, encoding):
    """Each name is printed escaped, in any encoding of the output; no name causes an error."""
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    folder = hostile_folder(tmp_path)
    done = [
        await gleaner("send", folder, *at),
        await gleaner("send", folder, "--json", *at),
        await gleaner("cloud", "import", folder.parent, "--dataset", tmp_path / "dataset"),
    ]
    for command in done:
        text = command.out + command.err
        assert "Traceback" not in text
        assert_inert(text)
        assert "empty\\x1b.jpg" in command.err
    sources = [json.loads(line)["source"] for line in done[1].out.splitlines()]
    assert len(sources) == 8
    assert f"{tmp_path}/pets/cat/caf\\udce9.jpg" in sources
    assert done[2].out.startswith("8 photos stored")


async def test_a_name_where_an_option_is_expected_is_printed_escaped():
    """The usage error of a file name that looks like an option, and an unknown command, are escaped."""
    for words in (("send", "x.jpg", "-\x1b]0;owned\x07"), ("\x1b]0;owned\x07",), ("send", "\udce9\x1b.jpg")):
        done = await gleaner(*words)
        assert done.code in (1, 2)
        assert "Traceback" not in done.err
        assert_inert(done.out, done.err)


def test_commands_print_only_through_the_module_that_escapes():
    """No other module of `cli` writes to standard output or standard error directly."""
    for path in sorted((ROOT / "cli").rglob("*.py")):
        if path.name == "output.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.Name) and node.id == "print"), path
