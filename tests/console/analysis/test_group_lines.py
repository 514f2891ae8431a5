"""Rules of console/analysis/group_lines.py: groups of devices in a form."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.analysis.group_lines import BadGroupLineError, group_lines, read_group_lines
from schemas.messages import Policy

CASES = [
    ("", {}),
    ("meter-* = meters\n\n door=* ", {"meter-*": "meters", "door": "*"}),
    ("cam-? = a\ncam-? = b", {"cam-?": "b"}),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_lines_become_groups(text, expected):
    """Empty lines and white space do not matter; the last line of a pattern counts."""
    assert read_group_lines(text) == expected
    assert read_group_lines(group_lines(expected)) == expected


@pytest.mark.parametrize(
    "line", ["meters", "a =", "= a", "A = a", "a = A", "a/b = c", "a = b.c", "a = b = c"]
)
def test_a_line_that_is_no_group_is_named(line):
    """The sentence at the field quotes it."""
    with pytest.raises(BadGroupLineError) as found:
        read_group_lines(f"ok = ok\n{line}\n")
    assert found.value.line == line


@given(st.text("ab*?-=. \n", max_size=12))
def test_what_the_form_accepts_the_contract_accepts(text):
    """Any text gives valid groups or names a line."""
    try:
        groups = read_group_lines(text)
    except BadGroupLineError:
        return
    policy = Policy(node="edge-1", groups=groups)
    assert msgspec.json.decode(msgspec.json.encode(policy), type=Policy) == policy
