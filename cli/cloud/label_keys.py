"""Key bindings of a labelling session: plain functions from a session and a key to the next session.

A label is published with the next key that decides something, so that `u` can undo it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from cloud.labeling.key_bindings import OTHER, QUIT, SKIP, UNDO

_ENTER, _ESCAPE, _ERASE = ("\r", "\n"), "\x1b", ("\x7f", "\b")
_ENDS = (QUIT, "\x03", "\x04")  # Ctrl-C and Ctrl-D: the terminal sends them as keys

Answer: TypeAlias = tuple[int, str]
"""Index of a photo in the list, and its label."""


@dataclass(frozen=True, slots=True)
class Session:
    """State of a labelling session.

    Attributes:
        keys: Label by key.
        remaining: Indices of the photos without an answer, from 0; the first is shown.
        pending: The last label, not yet published.
        typed: Name of another class as far as it is typed; None if none is being typed.
        ended: Whether the session has ended.
        previous: The session before the last answer; None before the first.
    """

    keys: Mapping[str, str]
    remaining: Sequence[int]
    pending: Answer | None = None
    typed: str | None = None
    ended: bool = False
    previous: "Session | None" = None

    @property
    def asking(self) -> bool:
        """Whether a photo is shown."""
        return not self.ended and len(self.remaining) > 0


def press(session: Session, key: str) -> tuple[Session, Answer | None]:
    """Apply one key.

    Args:
        session: Before.
        key: One character.

    Returns:
        The session after it, and the label to publish now, if any.
    """
    if session.typed is not None:
        return _type(session, key)
    if key in _ENDS:
        return replace(session, pending=None, ended=True), session.pending
    if key == UNDO:
        # The label before the pending one is published already: undo shows that photo again, and the later
        # label replaces the earlier one in the dataset.
        return replace(session.previous or session, pending=None), None
    return _answer(session, key) if session.asking else (session, None)


def _answer(session: Session, key: str) -> tuple[Session, Answer | None]:
    shown, *rest = session.remaining
    if key == SKIP:  # shown again after the others
        return replace(session, remaining=(*rest, shown), pending=None, previous=session), session.pending
    if key == OTHER:
        return replace(session, typed=""), None
    return _label(session, session.keys[key]) if key in session.keys else (session, None)


def _label(session: Session, label: str) -> tuple[Session, Answer | None]:
    shown, *rest = session.remaining
    previous = replace(session, typed=None)
    return replace(previous, remaining=rest, pending=(shown, label), previous=previous), session.pending


def _type(session: Session, key: str) -> tuple[Session, Answer | None]:
    """Apply a key while a class name is typed; an empty name, Escape or Ctrl-C returns to the photo."""
    typed = session.typed or ""
    if key in _ENTER and typed.strip():
        return _label(session, typed.strip())
    # Not QUIT: it is a letter of the name here.
    if key in (*_ENTER, _ESCAPE, *_ENDS[1:]):
        return replace(session, typed=None), None
    if key in _ERASE:
        return replace(session, typed=typed[:-1]), None
    return (replace(session, typed=typed + key) if key.isprintable() else session), None
