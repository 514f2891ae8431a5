"""Rules of console/web/phrasebook.py: sentences of other processes are translated."""
# ruff: noqa: RUF001  # Chinese has its own punctuation

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.diagnosis.sentence import Sentence
from console.web.languages import catalogue, translations
from console.web.phrasebook import Phrasebook
from deploy.sentences import sentences

CHINESE = translations("zh_Hant").gettext
TEMPLATES = [one.id for one in catalogue("zh_Hant") if isinstance(one.id, str)]
PLACE = re.compile(r"%\((\w+)\)s")
WORDS = st.text("abc ;:%", min_size=1, max_size=40)


@pytest.fixture(scope="module")
def book():
    """All templates of the catalogue, in Traditional Chinese."""
    return Phrasebook(TEMPLATES, CHINESE)


def test_every_sentence_of_a_component_is_found_again(book):
    """With any values: a finished text is translated like its template."""
    templates = set(sentences())
    assert len(templates) > 400
    for template in sorted(templates):
        names = dict.fromkeys(PLACE.findall(template))
        values = {name: f"x{at}" for at, name in enumerate(names)}
        said = book.said(template % values if values else template)
        assert said == (CHINESE(template) % values if values else CHINESE(template)), template


def test_a_sentence_is_said_with_the_sentences_in_it(book):
    """A reason in a verdict in an event; single words only where they cannot be names."""
    change = "76.0% → 91.5% (95 % interval of the gain +10.0 to +21.0 points)"
    reason = f"gold accuracy {change} on 200 photos: better (p < 0.001)"
    changed = "76.0% → 91.5%（增益的 95 % 信賴區間 +10.0 至 +21.0 個百分點）"
    expected = f"在 200 張照片上的黃金照片準確率 {changed}：較佳（p < 0.001）"
    assert book.said(reason) == expected
    assert book.said(f"version 3: promote: {reason}") == f"版本 3：升級：{expected}"
    assert (
        book.said("recall of gold -6.0 points on 50 photos: worse")
        == "在 50 張照片上 gold 的召回率 -6.0 個百分點：較差"
    )


def test_an_error_is_said_with_its_hint_and_the_value_that_was_expected(book):
    """As `GleanerError` writes them; and so is what several parts of a component report at once."""
    text = "size of the photo: expected at most 5 bytes, got 9; send the bytes of the file itself"
    assert book.said(text) == "照片的大小：應為最多 5 位元組，實得 9；請直接送出檔案的位元組"
    assert book.said("camera: usb:0 cannot be opened; outbox: no version in models") == (
        "camera：usb:0 無法開啟；outbox：models 中沒有版本"
    )


@pytest.mark.parametrize(
    "text",
    ["", "cat", "online", "all", "edge-1", "the barn is too dark", "a: b; c", "x" * 1024, "100 %s %(name)s"],
)
def test_what_is_none_of_ours_stays_as_it_is(book, text):
    """Names, codes, people's texts, and messages of other programs."""
    assert book.said(text) == text


def test_a_sentence_that_remembers_its_values_needs_no_search(book):
    """And what it quotes of others is searched for."""
    reason = "no version in models"
    said = book.said(Sentence("%(found)s: %(reason)s", found=Sentence("offline"), reason=reason))
    assert said == "離線：models 中沒有版本"


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(TEMPLATES) | WORDS, max_size=24), st.sampled_from([": ", "; ", " ", ""]))
def test_any_text_is_read(parts, joint):
    """Hostile ones too: without an error, and with a bounded number of looks."""
    text = joint.join(parts)[:1024]
    assert isinstance(Phrasebook(TEMPLATES, CHINESE).said(text), str)
