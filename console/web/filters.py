"""Filters of a page by the values that were seen: a list where they are few, else a field to type into."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from starlette.requests import Request

MAX_OPTIONS = 60
"""Most values that a list offers; a thousand of them would be most of the page."""


class Filter(NamedTuple):
    """A filter.

    Args:
        name: In the address of the page.
        title: For people, translated.
        options: What a list offers, with the text for people; empty: a field to type into.
    """

    name: str
    title: str
    options: Mapping[str, str]


def filter_of(name: str, title: str, seen: Iterable[str], say: Callable[[str], str] = str) -> Filter:
    """Return the filter of the values that were seen; `say` returns the text of a value for people."""
    values = sorted(set(seen))
    return Filter(name, title, {one: say(one) for one in values} if 0 < len(values) <= MAX_OPTIONS else {})


def chosen_in(request: Request, names: Iterable[str]) -> dict[str, str]:
    """Return what a request chose, by filter; empty for all."""
    return {name: request.query_params.get(name, "") for name in names}


def matcher(
    chosen: Mapping[str, str], seen: Mapping[str, Iterable[str]]
) -> Callable[[Mapping[str, str | None]], bool]:
    """Return the condition that values have to meet.

    Args:
        chosen: By filter: a value that was seen, or a part of some, in any case; empty for all.
        seen: The values of each filter.
    """
    exact = {name: text for name, text in chosen.items() if text and text in set(seen[name])}
    parts = {name: text.lower() for name, text in chosen.items() if text and name not in exact}

    def matches(values: Mapping[str, str | None]) -> bool:
        return all(values[name] == text for name, text in exact.items()) and all(
            part in (values[name] or "").lower() for name, part in parts.items()
        )

    return matches
