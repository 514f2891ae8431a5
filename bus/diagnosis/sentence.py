"""English sentences for people that remember what they were made of, so that a page can translate them."""

from collections.abc import Callable
from typing import Self


class Sentence(str):
    """A sentence: a plain string in English for all who do not translate it.

    Args:
        template: A literal, which `deploy/catalogue.py` finds; values stand in it as `%(name)s`.
        values: Of the template; sentences among them are translated too.
    """

    __slots__ = ("_template", "_values")
    _template: str
    _values: dict[str, object]

    def __new__(cls, template: str, **values: object) -> Self:
        """Make the English text."""
        made = super().__new__(cls, template % values if values else template)
        made._template, made._values = template, values
        return made

    def translated(self, gettext: Callable[[str], str]) -> str:
        """Return the sentence in another language."""
        values = {
            name: one.translated(gettext) if isinstance(one, Sentence) else one
            for name, one in self._values.items()
        }
        text = gettext(self._template)
        return text % values if values else text
