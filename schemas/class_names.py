"""Class names: their alphabet, and how a name that a person or device wrote is brought into it.

A class name is text of 1 to 128 characters in Unicode's composed form (NFC), without control characters,
without invisible format characters, and without white space at its ends. Two names that look the same but
differ in such characters would otherwise be two classes.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

from schemas.errors import PermanentError

MAX_CHARS = 128
NEITHER = "neither"
"""Label of a photo that shows none of the classes. Only people give it; no model has it as a class."""

_INVISIBLE_AT_ENDS = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp"})
_JOINERS = "\u200c\u200d"  # ZWNJ and ZWJ: part of the spelling in some scripts, and of emoji
_SEPARATORS = re.compile(r"[\s_-]+")


class ClassNameError(PermanentError):
    """A text that cannot be a class name; the message says why."""


def class_name(text: str) -> str:
    r"""Return the class name that a text stands for, such as `cat` for `" cat\r\n"`.

    Composes characters (NFC), removes invisible characters at the ends, and replaces a non-breaking or other
    space by a plain one.

    Raises:
        ClassNameError: Nothing is left, it has more than 128 characters, or there is a control or invisible
            character inside, so that it is unknown what was meant.
    """
    if any(unicodedata.category(character) == "Cs" for character in text):
        raise ClassNameError(f"class name {text!a} is not UTF-8", hint="rename it in UTF-8")
    name = unicodedata.normalize("NFC", text)
    name = name[_first_visible(name) : len(name) - _first_visible(name[::-1])]
    name = "".join(" " if unicodedata.category(character) == "Zs" else character for character in name)
    for at, character in enumerate(name):
        if not _is_allowed(name, at):
            raise ClassNameError(
                f"class name {text!a} has the character U+{ord(character):04X} inside",
                hint="use letters, digits, plain spaces and punctuation on one line",
            )
    if not name:
        raise ClassNameError(f"class name {text!a} is empty")
    if len(name) > MAX_CHARS:
        shown = ascii(name[:20])
        raise ClassNameError(
            f"class name {shown}… has {len(name)} characters", hint=f"use at most {MAX_CHARS}"
        )
    return name


def is_class_name(text: str) -> bool:
    """Return whether a text is a class name as it is."""
    try:
        return class_name(text) == text
    except ClassNameError:
        return False


def similar_names(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the groups of names that differ only in case, spaces, `_`, `-` or compatibility characters."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(set(names)):
        groups[_SEPARATORS.sub("", unicodedata.normalize("NFKC", name).casefold())].append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _first_visible(text: str) -> int:
    """Return the position of the first character that is neither white space, control nor format."""
    for at, character in enumerate(text):
        if unicodedata.category(character) not in _INVISIBLE_AT_ENDS:
            return at
    return len(text)


def _is_allowed(name: str, at: int) -> bool:
    character = name[at]
    if character in _JOINERS:
        # Next to ASCII a joiner changes nothing that is seen: `ca<ZWJ>t` would be a second class `cat`.
        return not (name[at - 1].isascii() or name[at + 1].isascii())
    return unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}
