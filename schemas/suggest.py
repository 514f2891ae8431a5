"""Suggest what a misspelt word was probably meant to be."""

import difflib
from collections.abc import Iterable

_CUTOFF = 0.7
_MIN_BEGINNING = 3


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the most similar known word, or an empty text.

    A word is also meant by its beginning, such as `cert` for `certificate`, if only one begins so.
    """
    words = list(known)
    found = difflib.get_close_matches(word, words, n=1, cutoff=_CUTOFF)
    if not found and len(word) >= _MIN_BEGINNING:
        begun = [one for one in words if one.startswith(word)]
        found = begun if len(begun) == 1 else []
    return f"; did you mean {found[0]!r}?" if found else ""
