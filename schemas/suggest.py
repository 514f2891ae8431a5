"""Suggest what a misspelt word was probably meant to be."""

import difflib
from collections.abc import Iterable

_CUTOFF = 0.7


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the most similar known word, or an empty text."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=_CUTOFF)
    return f"; did you mean {found[0]!r}?" if found else ""
