"""Class names: their alphabet, and how a name that a person or device wrote is brought into it.

A class name is text of 1 to 128 characters in Unicode's composed form (NFC), without control characters,
without invisible characters, and without white space at its ends. Two names that look the same but differ in
such characters would otherwise be two classes. Allowed is what spells a word or an emoji: joiners, and
variation selectors behind an emoji, an ideograph or a Mongolian letter.

Source: Unicode, Default_Ignorable_Code_Point and StandardizedVariants.
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
_FILLERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Invisible, in categories of visible characters: grapheme joiner, fillers, vowels, empty Braille."""
_MONGOLIAN_SELECTORS = "\u180b\u180c\u180d\u180f"
_EMOJI_SELECTORS = "\ufe0e\ufe0f"
_SELECTORS = re.compile("[\ufe00-\ufe0f\u180b-\u180d\u180f\U000e0100-\U000e01ef]")
_KEYCAP = "\u20e3"
_JOINERS = "\u200c\u200d"  # ZWNJ and ZWJ: part of the spelling in some scripts, and of emoji
_SEPARATORS = re.compile(r"[\s_-]+")


class ClassNameError(PermanentError):
    """A text that cannot be a class name; the message has the reason."""


def class_name(text: str) -> str:
    r"""Return the class name that a text stands for, such as `cat` for `" cat\r\n"`.

    Composes characters (NFC), removes invisible characters at the ends, and replaces a non-breaking or other
    space by a plain one. `neither` is written in small letters, because it is not a class.

    Raises:
        ClassNameError: Nothing is left, it has more than 128 characters, or there is a control or invisible
            character inside, so that it is unknown what was meant.
    """
    if any(unicodedata.category(character) == "Cs" for character in text):
        raise ClassNameError(f"class name {text!a} is not UTF-8", hint="rename it in UTF-8")
    name = unicodedata.normalize("NFC", text)
    name = _trimmed(name)
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
    return NEITHER if name.casefold() == NEITHER else name


def similar_names(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the groups of names that differ only in case, spaces, `_`, `-` or compatibility characters."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(set(names)):
        plain = _SELECTORS.sub("", unicodedata.normalize("NFKC", name))
        groups[_SEPARATORS.sub("", plain.casefold())].append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _trimmed(name: str) -> str:
    """Return a name without white space, control, format and other invisible characters at its ends."""
    start, end = 0, len(name)
    while start < end and (_is_blank(name[start]) or _SELECTORS.match(name[start])):
        start += 1
    while start < end and (
        _is_blank(name[end - 1])
        or (_SELECTORS.match(name[end - 1]) and not _is_allowed(name[start:end], end - start - 1))
    ):
        end -= 1
    return name[start:end]


def _is_blank(character: str) -> bool:
    return character in _FILLERS or unicodedata.category(character) in _INVISIBLE_AT_ENDS


def _is_allowed(name: str, at: int) -> bool:
    character = name[at]
    if character in _JOINERS:
        # Next to ASCII a joiner changes nothing that is seen: `ca<ZWJ>t` would be a second class `cat`.
        return not (name[at - 1].isascii() or name[at + 1].isascii())
    if _SELECTORS.match(character):
        return _selects(name, at)
    return character not in _FILLERS and unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}


def _selects(name: str, at: int) -> bool:
    """Return True for a variation selector behind a character of which there are variations."""
    before, selector = name[at - 1 : at], name[at]
    if selector in _MONGOLIAN_SELECTORS:
        return "\u1820" <= before <= "\u18aa"
    if selector in _EMOJI_SELECTORS:  # behind a digit only if a keycap follows: `1` looks the same with it
        is_symbol = bool(before) and not before.isascii() and not before.isalpha()
        return (is_symbol and not _SELECTORS.match(before)) or name[at + 1 : at + 2] == _KEYCAP
    return unicodedata.name(before, "").startswith("CJK ") if before else False
