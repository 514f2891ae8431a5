import asyncio
import os
import pty
import sys
import termios
from collections.abc import Callable
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bus.config import Broker
from cli.cloud.label_keys import Session, keys_of, press
from cli.cloud.label_session import half_blocks
from cloud.collector import collector
from cloud.collector.config import CollectorConfig
from cloud.dataset.store import Row, Store
from schemas.messages import NEITHER
from tests.cli.conftest import gleaner
from tests.conftest import ROOT, eventually, jpeg
from tests.nodes import photo, photo_id


def play(keys: str, count: int = 3, classes: tuple[str, ...] = ("cat", "dog")) -> tuple[Session, list]:
    """Press some keys; return the session after them and what was published."""
    session, published = Session(keys_of(classes), range(count)), []
    for key in keys:
        session, said = press(session, key)
        if said is not None:
            published.append(said)
    return session, published


def test_classes_have_a_digit_and_their_first_letter():
    """A letter that two classes share, or that is a command, is nobody's."""
    neither = {"0": NEITHER}
    assert keys_of(["cat", "dog"]) == {"1": "cat", "2": "dog", "c": "cat", "d": "dog"} | neither
    four = {"1": "Newt", "2": "cat", "3": "cow", "4": "owl"}
    assert keys_of(["Newt", "cat", "cow", "owl"]) == four | neither
    assert keys_of(["0-day", "cat"]) == {"1": "0-day", "2": "cat", "c": "cat"} | neither
    many = keys_of([f"{letter}x" for letter in "abcdefghij"])
    assert ("9" in many, many["j"]) == (True, "jx")


def test_a_key_labels_and_quitting_publishes_the_last():
    """Letters and digits say the same; each label goes out with the key behind it."""
    assert play("c")[1] == []
    assert play("c2")[1] == [(0, "cat")]
    session, published = play("c2q")
    assert (session.over, published) == (True, [(0, "cat"), (1, "dog")])


def test_undo_takes_the_last_label_back():
    """It is not published, and its photo is shown again; of what is published the later label holds."""
    assert play("cdud\x03")[1] == [(0, "cat"), (1, "dog")]
    assert play("cuq")[1] == []
    assert play("cnuudq")[1] == [(0, "cat"), (0, "dog")]
    assert play("nucq")[1] == [(0, "cat")]
    assert play("u")[0].ahead[0] == 0


def test_a_skipped_photo_comes_again_behind_the_others():
    """`n` labels nothing and blocks nothing; whoever does not know the last ones quits."""
    assert play("ncdcq")[1] == [(1, "cat"), (2, "dog"), (0, "cat")]
    assert play("nncndcq")[1] == [(2, "cat"), (1, "dog"), (0, "cat")]
    session, published = play("nnn")
    assert (session.ahead[0], session.asking, published) == (0, True, [])
    assert play("nq", 1)[1] == []


def test_at_the_end_there_is_nothing_to_answer():
    """Only `u` and `q` do something there."""
    session, published = play("cccdno1")
    assert (session.asking, session.over, published) == (False, False, [(0, "cat"), (1, "cat")])
    assert play("cccudq")[1] == [(0, "cat"), (1, "cat"), (2, "dog")]


def test_one_key_says_that_it_is_none_of_the_classes():
    """A table among cats and dogs is neither, and needs no class of its own."""
    assert play("0cq")[1] == [(0, NEITHER), (1, "cat")]


def test_another_class_is_typed():
    """Commands are letters in a name; Enter says it, Escape and an empty name go back."""
    assert play("oquno\rq")[1] == [(0, "quno")]
    assert play("oab\x7f\x7fcow \rq")[1] == [(0, "cow")]
    assert play("oab\x1bq")[1] == []
    assert play("o\rdq")[1] == [(0, "dog")]
    assert play("oé\x00\r\x04")[1] == [(0, "é")]


@given(st.text(alphabet="cd12nuoq\r\x1b\x7fx", max_size=40), st.integers(0, 5))
def test_no_keys_lead_astray(keys, count):
    """Whatever is typed: places are those of photos, and nothing is published twice but after an undo."""
    session, published = play(keys, count)
    assert set(session.ahead) <= set(range(count))
    assert len(set(session.ahead)) == len(session.ahead)
    assert all(0 <= place < count and label for place, label in published)
    if "u" not in keys:
        assert len({place for place, _ in published}) == len(published)


def test_a_photo_is_two_pixels_in_a_place():
    """Ink is the upper pixel and paper the lower one; the picture fits into the terminal."""
    drawn = half_blocks(photo(3, size=(90, 80)), 30, 10)
    lines = drawn.split("\n")
    assert len(lines) <= 10
    assert {line.count("▀") for line in lines} == {round(20 * 90 / 80)}
    assert all(line.startswith("\x1b[38;2;") and line.endswith("\x1b[0m") for line in lines)


class Terminal:
    """`gleaner cloud review --interactive` on a terminal of its own."""

    def __init__(self) -> None:
        self.ours, self._theirs = pty.openpty()
        termios.tcsetwinsize(self._theirs, (24, 80))
        self.seen = ""

    async def __aenter__(self) -> Self:
        asyncio.get_running_loop().add_reader(self.ours, self._read)
        return self

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self.ours)
        os.close(self.ours)
        os.close(self._theirs)

    def _read(self) -> None:
        self.seen += os.read(self.ours, 65536).decode("utf-8", "replace")

    async def start(self, *words: object) -> asyncio.subprocess.Process:
        command = (sys.executable, "-m", "cli.main", "cloud", "review", "--interactive", *map(str, words))
        return await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, stdin=self._theirs, stdout=self._theirs, stderr=asyncio.subprocess.PIPE
        )

    async def shows(self, words: str) -> None:
        await eventually(lambda: words in self.seen, within_s=30)

    def press(self, keys: str) -> None:
        os.write(self.ours, keys.encode())


@pytest.fixture
def dataset(tmp_path) -> Store:
    """Four harvested photos, of which the first is the least certain."""
    store = Store.open(tmp_path / "dataset")
    facts = {"width": 160, "height": 120, "received_at_ms": 1, "node": "edge-1", "device": "pi-1"}
    store.upsert(
        [
            Row(
                photo_id=photo_id(n),
                image=jpeg(n),
                lane="hard",
                edge_label="cat" if n % 2 else "dog",
                confidence=0.5 + n / 10,
                **facts,
            )
            for n in range(4)
        ]
    )
    return store


async def test_labels_are_given_with_one_key_each(address: Broker, at, dataset: Store):
    """On a real terminal, over a real broker, into the dataset: label, correct, skip, another class, quit."""
    config = CollectorConfig(broker=address, dataset=dataset.table.url)
    running = asyncio.create_task(collector.run(config))
    try:
        async with Terminal() as terminal, asyncio.timeout(60):
            process = await terminal.start("--dataset", dataset.table.url, "--by", "ann", *at)
            await terminal.shows("1 of 4")
            assert "▀" in terminal.seen
            assert "[c] cat" in terminal.seen
            for keys, then in (("c", "2 of 4"), ("\x1b[3~u", "1 of 4"), ("d", "2 of 4"), ("n", "2 of 4")):
                terminal.seen = ""
                terminal.press(keys)
                await terminal.shows(then)
            terminal.press("ocow\r")
            await terminal.shows("3 of 4")
            terminal.press("q")
            await terminal.shows("2 labels published")
            assert await process.wait() == 0

        def labels() -> dict[object, object]:
            return {row["photo_id"]: row["human_label"] for row in dataset.scan(["photo_id", "human_label"])}

        wanted = {photo_id(0): "dog", photo_id(1): None, photo_id(2): "cow", photo_id(3): None}
        await eventually(lambda: labels() == wanted)
        assert dataset.find([photo_id(0)], ["human_by"])[photo_id(0)]["human_by"] == "ann"
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_the_terminal_is_as_before(address: Broker, at, dataset: Store):
    """However a session ends, keys are lines again and echo."""
    async with Terminal() as terminal, asyncio.timeout(60):
        before = termios.tcgetattr(terminal.ours)
        process = await terminal.start("--dataset", dataset.table.url, *at)
        await terminal.shows("1 of 4")
        assert termios.tcgetattr(terminal.ours) != before
        terminal.press("\x03")
        assert await process.wait() == 0
        assert termios.tcgetattr(terminal.ours) == before


async def test_labelling_takes_a_terminal(at, dataset: Store):
    """Keys cannot be read from a pipe, and that is said."""
    done = await gleaner("cloud", "review", "--interactive", "--dataset", dataset.table.url, *at)
    assert done.code == 1
    assert done.sentence == "gleaner cloud review: standard input: expected a terminal, got none"


def test_a_sheet_shows_what_is_listed(called: Callable, dataset: Store, tmp_path):
    """The same photos in the same order, as a picture or a page."""
    words = ("cloud", "review", "--dataset", dataset.table.url, "--limit", 3)
    assert len(called(*words, "--sheet", tmp_path / "sheet.html").out.splitlines()) == 3
    page = (tmp_path / "sheet.html").read_text()
    assert page.index("1  dog 0.50") < page.index("2  cat 0.60") < page.index("3  dog 0.70")
    called(*words, "--sheet", tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG"
    assert "expected a name with .png or .html" in called(*words, "--sheet", tmp_path / "x.gif").sentence
