"""English sentences for people that remember what they were made of, so that a page can translate them."""

from typing import Self


class Sentence(str):
    """A sentence: a plain string in English for all who do not translate it.

    Args:
        template: A literal, which `deploy/catalogue.py` finds; values stand in it as `%(name)s`.
        values: Of the template; sentences among them are translated too.
    """

    __slots__ = ("template", "values")
    template: str
    values: dict[str, object]

    def __new__(cls, template: str, **values: object) -> Self:
        """Make the English text."""
        made = super().__new__(cls, template % values if values else template)
        made.template, made.values = template, values
        return made
