"""Rules of cli/cloud/label_keys.py and label_session.py: what each key does, and what is published."""

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
from cli.cloud.label_keys import Session, press
from cli.cloud.label_session import half_blocks
from cloud.collector import collector
from cloud.collector.config import CollectorConfig
from cloud.dataset.store import Row, Store
from cloud.labeling.key_bindings import key_bindings
from schemas.class_names import NEITHER
from tests.cli.conftest import gleaner
from tests.conftest import DEADLINE_S, ROOT, eventually, jpeg
from tests.nodes import photo, photo_id


def play(keys: str, count: int = 3, classes: tuple[str, ...] = ("cat", "dog")) -> tuple[Session, list]:
    """Press keys; return the session after them and the published labels."""
    session, published = Session(key_bindings(classes), range(count)), []
    for key in keys:
        session, answer = press(session, key)
        if answer is not None:
            published.append(answer)
    return session, published


def test_classes_have_a_digit_and_their_initial():
    """An initial that two classes share, or that is a command, is not bound."""
    neither = {"0": NEITHER}
    assert key_bindings(["cat", "dog"]) == {"1": "cat", "2": "dog", "c": "cat", "d": "dog"} | neither
    four = {"1": "Newt", "2": "cat", "3": "cow", "4": "owl"}
    assert key_bindings(["Newt", "cat", "cow", "owl"]) == four | neither
    assert key_bindings(["0-day", "cat"]) == {"1": "0-day", "2": "cat", "c": "cat"} | neither
    many = key_bindings([f"{letter}x" for letter in "abcdefghij"])
    assert ("9" in many, many["j"]) == (True, "jx")


def test_label_is_published_with_the_next_key():
    """Letters and digits give the same labels; each is published with the next key, quitting included."""
    assert play("c")[1] == []
    assert play("c2")[1] == [(0, "cat")]
    session, published = play("c2q")
    assert (session.ended, published) == (True, [(0, "cat"), (1, "dog")])


def test_undo_drops_the_pending_label():
    """The pending label is not published and its photo is shown again; a published one can be replaced."""
    assert play("cdud\x03")[1] == [(0, "cat"), (1, "dog")]
    assert play("cuq")[1] == []
    assert play("cnuudq")[1] == [(0, "cat"), (0, "dog")]
    assert play("nucq")[1] == [(0, "cat")]
    assert play("u")[0].remaining[0] == 0


def test_skipped_photo_is_shown_again_after_the_others():
    """`n` moves a photo behind the others, again and again, without a label."""
    assert play("ncdcq")[1] == [(1, "cat"), (2, "dog"), (0, "cat")]
    assert play("nncndcq")[1] == [(2, "cat"), (1, "dog"), (0, "cat")]
    session, published = play("nnn")
    assert (session.remaining[0], session.asking, published) == (0, True, [])
    assert play("nq", 1)[1] == []


def test_at_the_end_only_undo_and_quit_work():
    """When no photo is left, keys of classes and other commands do nothing."""
    session, published = play("cccdno1")
    assert (session.asking, session.ended, published) == (False, False, [(0, "cat"), (1, "cat")])
    assert play("cccudq")[1] == [(0, "cat"), (1, "cat"), (2, "dog")]


def test_zero_labels_neither():
    """`0` gives the label NEITHER."""
    assert play("0cq")[1] == [(0, NEITHER), (1, "cat")]


def test_other_class_is_typed():
    """Command keys are letters of a typed name; Enter confirms it, Escape and an empty name cancel."""
    assert play("oquno\rq")[1] == [(0, "quno")]
    assert play("oab\x7f\x7fcow \rq")[1] == [(0, "cow")]
    assert play("oab\x1bq")[1] == []
    assert play("o\rdq")[1] == [(0, "dog")]
    assert play("oé\x00\r\x04")[1] == [(0, "é")]


@given(st.text(alphabet="cd12nuoq\r\x1b\x7fx", max_size=40), st.integers(0, 5))
def test_any_keys_give_valid_answers(keys, count):
    """Any keys: indices are those of photos, and a photo is published twice only after an undo."""
    session, published = play(keys, count)
    assert set(session.remaining) <= set(range(count))
    assert len(set(session.remaining)) == len(session.remaining)
    assert all(0 <= index < count and label for index, label in published)
    if "u" not in keys:
        assert len({index for index, _ in published}) == len(published)


def test_half_blocks_have_two_pixels_per_character():
    """The picture fits into the given columns and lines, two pixels per character."""
    drawn = half_blocks(photo(3, size=(90, 80)), 30, 10)
    lines = drawn.split("\n")
    assert len(lines) <= 10
    assert {line.count("▀") for line in lines} == {round(20 * 90 / 80)}
    assert all(line.startswith("\x1b[38;2;") and line.endswith("\x1b[0m") for line in lines)


class Terminal:
    """`gleaner cloud review --interactive` on a pseudo-terminal."""

    def __init__(self) -> None:
        self.ours, self._theirs = pty.openpty()
        termios.tcsetwinsize(self._theirs, (24, 80))
        self.shown = ""

    async def __aenter__(self) -> Self:
        asyncio.get_running_loop().add_reader(self.ours, self._read)
        return self

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self.ours)
        os.close(self.ours)
        os.close(self._theirs)

    def _read(self) -> None:
        self.shown += os.read(self.ours, 65536).decode("utf-8", "replace")

    async def start(self, *words: object) -> asyncio.subprocess.Process:
        command = (sys.executable, "-m", "cli.main", "cloud", "review", "--interactive", *map(str, words))
        return await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, stdin=self._theirs, stdout=self._theirs, stderr=asyncio.subprocess.PIPE
        )

    async def shows(self, words: str) -> None:
        await eventually(lambda: words in self.shown)

    def press(self, keys: str) -> None:
        os.write(self.ours, keys.encode())


@pytest.fixture
def dataset(tmp_path) -> Store:
    """A dataset of four samples; the first is the most uncertain."""
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


async def test_labels_reach_the_dataset(address: Broker, at, dataset: Store):
    """Label, undo, skip, another class and quit, on a pseudo-terminal over a real broker into the dataset."""
    config = CollectorConfig(broker=address, dataset=dataset.table.url)
    running = asyncio.create_task(collector.run(config))
    try:
        async with Terminal() as terminal, asyncio.timeout(DEADLINE_S):
            process = await terminal.start("--dataset", dataset.table.url, "--by", "ann", *at)
            await terminal.shows("1 of 4")
            assert "▀" in terminal.shown
            assert "[c] cat" in terminal.shown
            for keys, then in (("c", "2 of 4"), ("\x1b[3~u", "1 of 4"), ("d", "2 of 4"), ("n", "2 of 4")):
                terminal.shown = ""
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


async def test_terminal_mode_is_restored(address: Broker, at, dataset: Store):
    """After Ctrl-C the terminal has its former attributes."""
    async with Terminal() as terminal, asyncio.timeout(DEADLINE_S):
        before = termios.tcgetattr(terminal.ours)
        process = await terminal.start("--dataset", dataset.table.url, *at)
        await terminal.shows("1 of 4")
        assert termios.tcgetattr(terminal.ours) != before
        terminal.press("\x03")
        assert await process.wait() == 0
        assert termios.tcgetattr(terminal.ours) == before


async def test_interactive_labelling_needs_a_terminal(at, dataset: Store):
    """The error: standard input is not a terminal."""
    done = await gleaner("cloud", "review", "--interactive", "--dataset", dataset.table.url, *at)
    assert done.code == 1
    assert done.sentence.startswith("gleaner cloud review: standard input is not a terminal; use --label")


def test_contact_sheet_shows_the_listed_photos(called: Callable, dataset: Store, tmp_path):
    """The sheet has the listed photos in the same order, as PNG or HTML."""
    words = ("cloud", "review", "--dataset", dataset.table.url, "--limit", 3)
    _, *listed = called(*words, "--sheet", tmp_path / "sheet.html").out.splitlines()
    assert len(listed) == 3
    page = (tmp_path / "sheet.html").read_text()
    assert page.index("1  dog 0.50") < page.index("2  cat 0.60") < page.index("3  dog 0.70")
    called(*words, "--sheet", tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG"
    assert "its name must end in .png or .html" in called(*words, "--sheet", tmp_path / "x.gif").sentence
