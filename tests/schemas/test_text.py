import json
import re

from hypothesis import example, given
from hypothesis import strategies as st

from schemas.text import ascii_json, escaped, listed

HOSTILE = "\x1b]0;owned\x07\x9b31m\x00\x7f\x85\u200f\u202e\u2066\u2028\u2029\ufeff\udce9\U000e0041\r\n\tend"
"""Sets the window's title, colours, reorders and breaks lines, and has a byte that is not UTF-8."""

any_text = st.text(st.characters(exclude_categories=()))


@given(any_text)
@example(HOSTILE)
def test_everything_that_is_printed_is_printable(text):
    """Escaped text is printable, can be encoded as UTF-8, and printable text is as before."""
    shown = escaped(text)
    assert shown.isprintable()
    shown.encode()
    assert (shown == text) == text.isprintable()


def test_escape_sequences_are_those_of_python():
    """Each character is recognisable; letters of any script stay."""
    assert escaped("Käfer 猫 🐈 \x1b[31m\n\u202e\udce9") == "Käfer 猫 🐈 \\x1b[31m\\n\\u202e\\udce9"


def test_long_text_is_shortened_and_says_so():
    """A text of any length takes a bounded number of characters."""
    assert escaped("a" * 1_000_000, 10) == "aaaaaaaaaa… (999990 more characters)"
    assert len(escaped("\U000e0001" * 1_000_000)) < 200_000


@given(st.dictionaries(any_text, any_text | st.lists(any_text, max_size=3) | st.floats(), max_size=3))
@example({HOSTILE: [HOSTILE]})
def test_json_is_printable_ascii(value):
    """JSON has only printable ASCII, is valid for strict readers, and equals the text but for surrogates."""
    line = ascii_json(value)
    assert line.isascii()
    assert line.isprintable()
    assert not re.search(r"[\ud800-\udfff]", json.dumps(json.loads(line), ensure_ascii=False))


def test_json_keeps_the_text():
    """What JSON escapes, a reader gets back."""
    assert json.loads(ascii_json({"a": "Käfer 🐈 \x1b\u202e\x7f"})) == {"a": "Käfer 🐈 \x1b\u202e\x7f"}


def test_many_names_are_the_first_ones_and_a_number():
    """A fleet has more nodes than a line; one more than are shown is shown, too."""
    assert listed([]) == ""
    assert listed(["a", "b", "c"], most=2) == "a, b, c"
    assert listed(["a", "b", "c", "d"], most=2) == "a, b and 2 more"
