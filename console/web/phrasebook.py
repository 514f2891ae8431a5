"""Translate sentences that components, trainings and commands gave in English.

Their sentences arrive as text: over the broker, from a card or a rollout's file, or as an error. They are
found again by the templates of the catalogue, with the values that stand in them
(docs/decisions/0079-sentences-found-again-by-their-templates.md).
"""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from bus.diagnosis.sentence import Sentence
from console.web.words import VALUES

JOINED = Sentence("%(one)s; %(other)s")
EXPECTED = Sentence("%(subject)s: expected %(expected)s, got %(got)s")
ABOUT = Sentence("%(subject)s: %(found)s")

_VALUE = re.compile(r"%\((\w+)\)s")
_MIN_LETTERS = 5
"""A template with less around its values would be found in any text."""
_MAX_JOINTS = 16
"""A text with more colons and semicolons is none of ours."""
_REMEMBERED = 4096


class _Reading(NamedTuple):
    """What a text may have been made of. The greatest one is the likeliest.

    Attributes:
        known: How many characters are of its templates, with those of the sentences in it.
        unread: Less the joints in its values that are not sentences: each probably separates two sentences.
        outermost: 2 for a template that the text begins with, 1 for sentences that were joined, else 0.
        own: How many characters are of the template itself.
        sentence: The template with its values.
    """

    known: int
    unread: int
    outermost: int
    own: int
    sentence: Sentence


class Phrasebook:
    """Translates sentences and what they are made of.

    Args:
        templates: English texts of the catalogue, with `%(name)s` where values stand.
        gettext: Translates a template.
    """

    def __init__(self, templates: Iterable[str], gettext: Callable[[str], str]) -> None:
        joints = {JOINED.template, EXPECTED.template, ABOUT.template}
        found = [_Template(one) for one in templates if " " in one and one not in joints]
        self._templates = [one for one in found if one.letters >= _MIN_LETTERS]
        self._gettext = gettext
        self._read = lru_cache(_REMEMBERED)(self._reading)

    def said(self, text: str) -> str:
        """Return a sentence in this language; what is none of ours stays as it is."""
        sentence = text if isinstance(text, Sentence) else self.read(text)
        if sentence is None:
            return text
        said = self._gettext(sentence.template)
        values = {name: self._value(name, one) for name, one in sentence.values.items()}
        return said % values if values else said

    def read(self, text: str) -> Sentence | None:
        """Return the sentence that a text is, None if it is none of ours."""
        reading = self._read(text) if _count_joints(text) <= _MAX_JOINTS else None
        return None if reading is None else reading.sentence

    def _value(self, name: str, value: object) -> object:
        if not isinstance(value, str):
            return value
        word = VALUES.get(name, {}).get(value)
        return self.said(value) if word is None else self._gettext(word)

    def _reading(self, text: str) -> _Reading | None:
        # One word alone is a name or a code.
        if " " not in text:
            return None
        return max(self._readings(text), key=lambda one: one[:4], default=None)

    def _readings(self, text: str) -> Iterator[_Reading]:
        for one in self._templates:
            values = one.values_in(text)
            if values is not None:
                yield self._weighed(one.text, values, one.known, 0 if one.text.startswith("%(") else 2)
        for joint, values in _joints(text):
            found = self._weighed(joint.template, values, 0, 1)
            if found.known:
                yield found

    def _weighed(self, template: str, values: dict[str, str], own: int, outermost: int) -> _Reading:
        known = unread = 0
        for one in values.values():
            if (found := self._read(one)) is None:
                unread += _count_joints(one)
            else:
                known += found.known
        return _Reading(own + known, -unread, outermost, own, Sentence(template, **values))


def _count_joints(text: str) -> int:
    return text.count(": ") + text.count("; ")


def _joints(text: str) -> Iterator[tuple[Sentence, dict[str, str]]]:
    """Yield what a text of several parts may be: with a hint, with an expected value, about something."""
    one, mark, other = text.partition("; ")
    if mark:
        yield JOINED, {"one": one, "other": other}
    subject, mark, rest = text.partition(": expected ")
    expected, comma, got = rest.rpartition(", got ")
    if mark and comma:
        yield EXPECTED, {"subject": subject, "expected": expected, "got": got}
    subject, mark, found = text.partition(": ")
    if mark:
        yield ABOUT, {"subject": subject, "found": found}


class _Template:
    """A template, taken apart to find its values in a text in one pass: no text makes it slow."""

    def __init__(self, text: str) -> None:
        self.text = text
        first, *rest = _VALUE.split(text)
        self._names, ends = rest[::2], rest[1::2]
        # Without values it is not formatted, so that a percent sign is one.
        self._first, *self._ends = [one.replace("%%", "%") for one in (first, *ends)] if rest else [first]
        own = "".join([self._first, *self._ends])
        self.letters, self.known = sum(map(str.isalpha, own)), len(own) - own.count(" ")

    def values_in(self, text: str) -> dict[str, str] | None:
        """Return the values with which the template gives a text, None if there are none."""
        if not text.startswith(self._first):
            return None
        at, values = len(self._first), dict[str, str]()
        for name, end in zip(self._names, self._ends, strict=True):
            is_last = len(values) + 1 == len(self._names)
            stop = (
                len(text) - len(end)
                if is_last and text.endswith(end)
                else -1
                if is_last
                else text.find(end, at + 1)
            )
            if stop < at:
                return None
            values[name] = text[at:stop]
            at = stop + len(end)
        return values if at == len(text) else None
