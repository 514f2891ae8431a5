"""Rules of schemas/class_names.py: which texts are class names, and which names are nearly equal."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.class_names import MAX_CHARS, ClassNameError, class_name, similar_names


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("cat\n", "cat"),
        (" cat", "cat"),
        ("\tcat\r\n", "cat"),
        ("cat\u00a0", "cat"),
        ("\ufeffcat", "cat"),
        ("cat\u200d", "cat"),
        ("\u202ecat\u202c", "cat"),
        ("Ka\u0308fer", "K\u00e4fer"),
        ("golden\u00a0retriever", "golden retriever"),
        ("\U0001f469\u200d\U0001f52c", "\U0001f469\u200d\U0001f52c"),
        ("x" * MAX_CHARS + "\n", "x" * MAX_CHARS),
        ("neither ", "neither"),
        ("Neither", "neither"),
        ("NEITHER\n", "neither"),
        ("cat\u034f", "cat"),
        ("cat\ufe0f", "cat"),
        ("cat\u180b", "cat"),
        ("cat\u17b4", "cat"),
        ("cat\u2800", "cat"),
        ("\u3164cat\uffa0\u115f", "cat"),
        ("\U000e0100cat\U000e0100 ", "cat"),
        ("\u2764\ufe0f", "\u2764\ufe0f"),  # emoji with their variation selector
        ("\U0001f3f3\ufe0f\u200d\U0001f308", "\U0001f3f3\ufe0f\u200d\U0001f308"),
        ("1\ufe0f\u20e3", "1\ufe0f\u20e3"),
        ("\u203c\ufe0f", "\u203c\ufe0f"),
        ("\u8fbb\U000e0100", "\u8fbb\U000e0100"),  # a form of a Japanese name
        ("\u182d\u180b", "\u182d\u180b"),  # Mongolian
        ("\u0928\u094d\u200d\u092f", "\u0928\u094d\u200d\u092f"),  # Devanagari
    ],
)
def test_what_is_invisible_at_the_ends_is_removed(text: str, name: str) -> None:
    """Outer white space, control and format characters go; characters are composed."""
    assert class_name(text) == name
    assert class_name(name) == name


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        (" \t\n", "is empty"),
        ("\u200b", "is empty"),
        ("cat\ndog", "U+000A inside"),
        ("cat\tdog", "U+0009 inside"),
        ("cat\u2028dog", "U+2028 inside"),
        ("ca\u200dt", "U+200D inside"),
        ("ca\u202et", "U+202E inside"),
        ("c\x1b[31mat", "U+001B inside"),
        ("ca\u034ft", "U+034F inside"),
        ("ca\ufe0ft", "U+FE0F inside"),
        ("ca\u3164t", "U+3164 inside"),
        ("ca\u2800t", "U+2800 inside"),
        ("\u30cd\ufe00\u30b3", "U+FE00 inside"),
        ("\u3164\u115f\u2800\uffa0", "is empty"),
        ("caf\udce9", "is not UTF-8; rename it in UTF-8"),
        ("x" * (MAX_CHARS + 1), "has 129 characters; use at most 128"),
    ],
)
def test_a_text_that_could_mean_anything_is_refused(text: str, reason: str) -> None:
    """The error names the character, prints nothing raw, and suggests what to use."""
    with pytest.raises(ClassNameError, match=reason.replace("+", r"\+")) as caught:
        class_name(text)
    assert str(caught.value).isprintable()


@given(st.text(max_size=140))
@example("0\ufe0f\u034f\u200d")
@example("\u2764\u034f\ufe0f")
@example("\u0958")  # composition excludes it: NFC makes it longer
def test_a_class_name_is_its_own_name(text: str) -> None:
    """What comes out is composed, printable on one line, bounded, and comes out again."""
    try:
        name = class_name(text)
    except ClassNameError:
        return
    assert class_name(name) == name
    assert unicodedata.is_normalized("NFC", name)
    assert name.splitlines() == [name]
    assert name.strip() == name
    assert len(name) <= MAX_CHARS


def test_nearly_equal_names_are_grouped() -> None:
    """Case, spaces, dashes and compatibility characters make no other class for people."""
    names = ["cat", "Cat", "polar bear", "polar_bear", "Polar-Bear", "dog", "\uff23at"]
    assert similar_names(names) == [("Cat", "cat", "\uff23at"), ("Polar-Bear", "polar bear", "polar_bear")]
    assert similar_names(["\u2764", "\u2764\ufe0f"]) == [("\u2764", "\u2764\ufe0f")]
