"""Rules of schemas/suggest.py."""

import pytest

from schemas.suggest import did_you_mean

FIELDS = ("ca", "certificate", "key", "crl", "keepalive_s", "auto_confidence", "auto_by_class")


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("caa", "ca"),
        ("certifcate", "certificate"),
        ("cert", "certificate"),
        ("keepalive", "keepalive_s"),
        ("keep", "keepalive_s"),
        ("auto", None),
        ("ce", None),
        ("password", None),
        ("", None),
    ],
)
def test_a_word_is_meant_by_a_similar_one_or_its_beginning(word: str, meant: str | None) -> None:
    """A beginning that several words have, or a very short one, means none."""
    assert did_you_mean(word, FIELDS) == ("" if meant is None else f"; did you mean {meant!r}?")
