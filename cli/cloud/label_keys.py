"""What the keys of a labelling session do: plain functions from a session and a key to the next session.

A label is not published before the next key decides something, so that `u` can take it back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from schemas.messages import NEITHER

SKIP, UNDO, OTHER, QUIT = "n", "u", "o", "q"
_NONE = "0"
_RESERVED = (SKIP, UNDO, OTHER, QUIT, _NONE)
_ENTER, _ESCAPE, _ERASE = ("\r", "\n"), "\x1b", ("\x7f", "\b")
_ENDS = (QUIT, "\x03", "\x04")  # Ctrl-C and Ctrl-D

Said: TypeAlias = tuple[int, str]
"""A photo's place in the list, and its label."""


@dataclass(frozen=True, slots=True)
class Session:
    """Where a session stands.

    Attributes:
        keys: Label by key.
        ahead: Places of the photos that wait for an answer, from 0; the first is shown.
        held: The last label, which can still be taken back.
        typed: Name of another class as far as it is typed, None unless one is.
        over: Whether it has ended.
        before: The session before the last answer; None before the first.
    """

    keys: Mapping[str, str]
    ahead: Sequence[int]
    held: Said | None = None
    typed: str | None = None
    over: bool = False
    before: "Session | None" = None

    @property
    def asking(self) -> bool:
        """Whether a photo is shown that waits for an answer."""
        return not self.over and len(self.ahead) > 0


def keys_of(classes: Sequence[str]) -> dict[str, str]:
    """Give each class a digit, and its first letter unless another class or a command has it.

    Classes beyond the ninth have a letter, or are typed in. 0 says that a photo shows none of them.
    """
    keys = {str(number): name for number, name in enumerate(classes[:9], start=1)}
    for name in classes:
        initial = name[0].lower()
        shared = sum(other[0].lower() == initial for other in classes) > 1
        if not (shared or initial in _RESERVED or initial in keys):
            keys[initial] = name
    return keys | {_NONE: NEITHER}


def press(session: Session, key: str) -> tuple[Session, Said | None]:
    """Decide what a key does.

    Args:
        session: Before.
        key: One character.

    Returns:
        The session after it, and the label that is final now and has to be published, if there is one.
    """
    if session.typed is not None:
        return _type(session, key)
    if key in _ENDS:
        return replace(session, held=None, over=True), session.held
    if key == UNDO:
        return replace(session.before or session, held=None), None
    return _answer(session, key) if session.asking else (session, None)


def _answer(session: Session, key: str) -> tuple[Session, Said | None]:
    shown, *others = session.ahead
    if key == SKIP:  # it comes again behind the others
        return replace(session, ahead=(*others, shown), held=None, before=session), session.held
    if key == OTHER:
        return replace(session, typed=""), None
    return _say(session, session.keys[key]) if key in session.keys else (session, None)


def _say(session: Session, label: str) -> tuple[Session, Said | None]:
    shown, *others = session.ahead
    before = replace(session, typed=None)
    return replace(before, ahead=others, held=(shown, label), before=before), session.held


def _type(session: Session, key: str) -> tuple[Session, Said | None]:
    """Take one key of another class's name; an empty name, Escape or Ctrl-C goes back to the photo."""
    typed = session.typed or ""
    if key in _ENTER and typed.strip():
        return _say(session, typed.strip())
    if key in (*_ENTER, _ESCAPE, *_ENDS[1:]):
        return replace(session, typed=None), None
    if key in _ERASE:
        return replace(session, typed=typed[:-1]), None
    return (replace(session, typed=typed + key) if key.isprintable() else session), None
