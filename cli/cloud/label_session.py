"""One-key labelling in the terminal: shows a photo after the other, publishes what a person says of it."""

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

from bus.mqtt.publish_confirmed import publish_confirmed
from cli import connect
from cli.cloud.label_keys import OTHER, QUIT, SKIP, UNDO, Session, keys_of, press
from cloud.dataset.store import Store
from cloud.labeling.contact_sheet import thumbnail
from cloud.labeling.review_queue import ReviewItem, feedback_for, known_classes
from schemas.errors import PermanentError
from schemas.topics import FEEDBACK

_CLEAR = "\x1b[2J\x1b[H"
_WORDS_LINES = 4
_WIDEST = 100
_UNREAD_KEYS = 1024
_WORDLESS = re.compile("\x1b[\\[O][0-9;]*[A-Za-z~]")
"""What arrows and other keys without a letter send."""


async def label_photos(arguments: Namespace, store: Store, reviews: Sequence[ReviewItem]) -> int:
    """Ask a person about each photo until all are labelled or they quit.

    Each label is published with the next key. Cancelling loses the last one, if that key did not come.

    Returns:
        How many labels were published.

    Raises:
        PermanentError: Standard input is no terminal, or a typed label is out of its range.
        BrokerConnectionError: The broker went away, or refuses a label; those before it are published.
    """
    classes = await asyncio.to_thread(known_classes, store)
    session, published = Session(keys_of(classes), range(len(reviews))), 0
    bus = connect.bus(arguments, "review")
    echoes = bus.subscribe(FEEDBACK)
    async with connect.connected(arguments, bus):
        with _keys() as keys:
            while not session.over:
                print(_CLEAR + screen(session, reviews, shutil.get_terminal_size()), flush=True)
                session, said = press(session, await keys.get())
                if said is not None:
                    place, label = said
                    feedback = await asyncio.to_thread(
                        feedback_for, store, reviews[place].photo_id, label, arguments.by
                    )
                    await publish_confirmed(
                        bus, echoes, FEEDBACK, feedback, node=feedback.node, device=feedback.device
                    )
                    published += 1
    return published


def screen(session: Session, reviews: Sequence[ReviewItem], size: os.terminal_size) -> str:
    """Return what the terminal shows: the photo, what models say of it, and the keys."""
    commands = f"[{SKIP}] later  [{UNDO}] undo  [{OTHER}] other  [{QUIT}] quit"
    count = len(reviews)
    if not session.asking:
        return f"{count} of {count}: no more photos  [{UNDO}] undo  [{QUIT}] quit"
    review = reviews[session.ahead[0]]
    said = [f"{review.edge_label or '?'} {review.confidence or 0.0:.2f}", review.lane or "?"]
    if review.teacher_label is not None:
        said.append(f"teacher: {review.teacher_label}")
    keys = "  ".join(f"[{key}] {name}" for key, name in session.keys.items())
    words = [f"{count - len(session.ahead) + 1} of {count}  {'  '.join(said)}", keys]
    words.append(commands if session.typed is None else f"class: {session.typed}_  (Enter, or Esc)")
    picture = half_blocks(review.image, min(size.columns, _WIDEST), max(2, size.lines - _WORDS_LINES))
    return "\n".join([picture, *words])


def half_blocks(image: bytes, columns: int, lines: int) -> str:
    """Draw a photo with half blocks, two pixels in each place: the upper one is ink, the lower one paper."""
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
def _keys() -> Iterator[asyncio.Queue[str]]:
    """Read single keys from the terminal for the length of a block; its end counts as Ctrl-D.

    What is typed beyond 1024 unread keys is dropped.
    """
    if not sys.stdin.isatty():
        raise PermanentError("standard input", expected="a terminal", got="none")
    descriptor, keys = sys.stdin.fileno(), asyncio.Queue[str](_UNREAD_KEYS)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def read() -> None:
        try:
            typed = os.read(descriptor, _UNREAD_KEYS)
        except OSError:  # the terminal went away
            typed = b""
        text = _WORDLESS.sub("", decoder.decode(typed)) if typed else "\x04"
        for key in text[: keys.maxsize - keys.qsize()]:
            keys.put_nowait(key)

    before = termios.tcgetattr(descriptor)
    loop = asyncio.get_running_loop()
    tty.setcbreak(descriptor)
    single = termios.tcgetattr(descriptor)
    single[3] &= ~termios.ISIG  # Ctrl-C is a key, so that the last label is still published
    termios.tcsetattr(descriptor, termios.TCSADRAIN, single)
    loop.add_reader(descriptor, read)
    try:
        yield keys
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
