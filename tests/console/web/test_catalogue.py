"""Rules of the message catalogues: complete, up to date, and with the placeholders of the English texts."""

import io
import re
from pathlib import Path

import pytest
from babel.messages.pofile import read_po

from deploy import catalogue
from tests.conftest import ROOT

CATALOGUES = sorted((ROOT / "console").glob("locale/*/LC_MESSAGES/console.po"))
PLACEHOLDER = re.compile(r"%\(\w+\)s|%%")


def messages(path: Path) -> list[tuple[list[str], list[str]]]:
    """Return singular and plural of each text, and its translations."""
    found = read_po(io.BytesIO(path.read_bytes()), locale=path.parts[-3])
    return [(_forms(one.id), _forms(one.string)) for one in found if one.id]


def _forms(text: object) -> list[str]:
    return [text] if isinstance(text, str) else [str(one) for one in text]


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.parts[-3])
def test_every_text_is_translated(path):
    """Those of templates and of Python, meanings of events and reasons of the review; in each plural form."""
    texts = messages(path)
    assert len(texts) > 200
    assert [ids[0] for ids, strings in texts if not strings or not all(strings)] == []


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.parts[-3])
def test_a_catalogue_has_exactly_the_texts_of_the_pages(path):
    """If not: `make catalogue` brings them in, and removes those that are gone."""
    assert path.read_bytes() == catalogue.updated(path)


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.parts[-3])
def test_a_translation_has_the_placeholders_of_its_text(path):
    """One that is missing would lose a figure, another one would fail when the page is shown."""
    wrong = [
        ids[0]
        for ids, strings in messages(path)
        for string in strings
        if sorted(PLACEHOLDER.findall(string)) != sorted(PLACEHOLDER.findall(ids[-1]))
    ]
    assert wrong == []


def test_there_is_traditional_chinese():
    """The catalogue of the language that was asked for."""
    assert [path.parts[-3] for path in CATALOGUES] == ["zh_Hant"]
