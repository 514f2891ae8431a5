"""Rules of bus/diagnosis/sentence.py: a sentence is English text that knows what it was made of."""

from bus.diagnosis.sentence import Sentence
from schemas.errors import PermanentError


def test_a_sentence_is_english_text():
    """Its values keep their places; without any, also a percent sign stays as it is."""
    sentence = Sentence("%(what)s is %(state)s", what="100%s", state=Sentence("offline"))
    assert sentence == "100%s is offline"
    assert (sentence.template, sentence.values) == (
        "%(what)s is %(state)s",
        {"what": "100%s", "state": "offline"},
    )
    assert Sentence("100 %") == "100 %"


def test_an_error_of_sentences_is_plain_text():
    """What is written to logs and messages is a string and nothing else, which every encoder takes."""
    assert type(str(PermanentError(Sentence("no photo was chosen")))) is str
