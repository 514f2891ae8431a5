"""Label photos in the terminal with one key each, and publish the labels as Feedback."""

import asyncio
import codecs
import os
import re
import shutil
import sys
import termios
import tty
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from bus.mqtt.publish_confirmed import publish_confirmed
from cli import connect, options
from cli.cloud.label_keys import Session, press
from cli.output import print_raw
from cloud.dataset.store import Store
from cloud.labeling.contact_sheet import thumbnail
from cloud.labeling.key_bindings import OTHER, QUIT, SKIP, UNDO, key_bindings
from cloud.labeling.label_receipts import LabelReceipts
from cloud.labeling.review_order import reason_text
from cloud.labeling.review_queue import ReviewItem, feedback_for, known_classes
from schemas.errors import PermanentError
from schemas.messages import Feedback
from schemas.text import escaped
from schemas.topics import FEEDBACK

_CLEAR = "\x1b[2J\x1b[H"
_TEXT_LINES = 4
_MAX_COLUMNS = 100
_UNREAD_KEYS = 1024
# Arrows and function keys send these; without the filter their last letter would be taken for a key.
_ESCAPE_SEQUENCE = re.compile("\x1b[\\[O][0-9;]*[A-Za-z~]")


async def label_photos(arguments: Namespace, store: Store, items: Sequence[ReviewItem]) -> list[str | None]:
    """Show each photo and publish its label, until all are labelled or the reviewer quits.

    Each label is published with the next key. Cancelling loses a label whose next key was not pressed.

    Returns:
        What a collector did with each published label, as `Store.label` returns it; None if none answered.

    Raises:
        PermanentError: Standard input is not a terminal, or a typed label is out of range.
        BrokerConnectionError: The connection is lost or a label refused; earlier labels are published.
    """
    classes = await asyncio.to_thread(known_classes, store)
    session, published = Session(key_bindings(classes), range(len(items))), list[Feedback]()
    as_person = options.broker(arguments).tls is not None
    bus = connect.bus(arguments, "review")
    # A label is confirmed when the broker delivers it back: MQTT 3.1.1 acknowledges what it does not allow.
    echoes = bus.subscribe(FEEDBACK)
    receipts = LabelReceipts(bus)
    async with connect.connected(arguments, bus), receipts.listening():
        with _read_keys() as keys:
            while not session.ended:
                print_raw(_CLEAR + screen(session, items, shutil.get_terminal_size()))
                session, answer = press(session, await keys.get())
                if answer is not None:
                    index, label = answer
                    make = partial(
                        feedback_for, store, items[index].photo_id, label, arguments.by, as_person=as_person
                    )
                    feedback = await asyncio.to_thread(make)
                    assert isinstance(feedback, Feedback), "only samples await a review"
                    await publish_confirmed(
                        bus, echoes, FEEDBACK, feedback, node=feedback.node, device=feedback.device
                    )
                    published.append(feedback)
        return await receipts.outcomes(published, arguments.wait)


def screen(session: Session, items: Sequence[ReviewItem], size: os.terminal_size) -> str:
    """Return the text of the terminal: the photo, the models' labels, and the keys."""
    commands = f"[{SKIP}] later  [{UNDO}] undo  [{OTHER}] other  [{QUIT}] quit"
    count = len(items)
    if not session.asking:
        return f"{count} of {count}: no more photos  [{UNDO}] undo  [{QUIT}] quit"
    item = items[session.remaining[0]]
    facts = [f"{item.edge_label or '?'} {item.confidence or 0.0:.2f}", item.lane or "?"]
    if item.teacher_label is not None:
        facts.append(f"teacher: {item.teacher_label}")
    if item.reason is not None:
        facts.append(f"asked: {reason_text(item)}")
    keys = "  ".join(f"[{key}] {name}" for key, name in session.keys.items())
    lines = [f"{count - len(session.remaining) + 1} of {count}  {'  '.join(facts)}", keys]
    lines.append(commands if session.typed is None else f"class: {session.typed}_  (Enter, or Esc)")
    picture = half_blocks(item.image, min(size.columns, _MAX_COLUMNS), max(2, size.lines - _TEXT_LINES))
    return "\n".join([picture, *map(escaped, lines)])


def half_blocks(image: bytes, columns: int, lines: int) -> str:
    """Draw a photo with half-block characters.

    Each is two pixels: the upper one in the foreground colour, the lower one in the background colour.
    """
    picture = thumbnail(image, (columns, 2 * lines))
    pixels = picture.load()
    assert pixels is not None
    rows = []
    for top in range(0, picture.height, 2):
        cells = []
        for left in range(picture.width):
            upper = pixels[left, top]
            lower = pixels[left, min(top + 1, picture.height - 1)]
            cells.append(f"\x1b[38;2;{_colour(upper)};48;2;{_colour(lower)}m▀")
        rows.append("".join(cells) + "\x1b[0m")
    return "\n".join(rows)


def _colour(pixel: object) -> str:
    assert isinstance(pixel, tuple)
    return ";".join(map(str, pixel))


@contextmanager
def _read_keys() -> Iterator[asyncio.Queue[str]]:
    """Read single keys from the terminal for the length of a block; a closed terminal counts as Ctrl-D.

    At most 1024 keys are queued; further ones are dropped.
    """
    if not sys.stdin.isatty():
        raise PermanentError(
            "standard input is not a terminal", hint="use --label PHOTO_ID LABEL in a script"
        )
    descriptor, keys = sys.stdin.fileno(), asyncio.Queue[str](_UNREAD_KEYS)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def read() -> None:
        try:
            typed = os.read(descriptor, _UNREAD_KEYS)
        except OSError:  # the terminal was closed
            typed = b""
        text = _ESCAPE_SEQUENCE.sub("", decoder.decode(typed)) if typed else "\x04"
        for key in text[: keys.maxsize - keys.qsize()]:
            keys.put_nowait(key)

    before = termios.tcgetattr(descriptor)
    loop = asyncio.get_running_loop()
    tty.setcbreak(descriptor)
    attributes = termios.tcgetattr(descriptor)
    # No signal from Ctrl-C: as a key it ends the session, and the last label is still published.
    attributes[3] &= ~termios.ISIG
    termios.tcsetattr(descriptor, termios.TCSADRAIN, attributes)
    loop.add_reader(descriptor, read)
    try:
        yield keys
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
