"""Rules of bus/diagnosis/sentence.py: a sentence is English text, and can be said in another language."""

from bus.diagnosis.sentence import Sentence
from schemas.errors import PermanentError

CATALOGUE = {"%(what)s is %(state)s": "%(what)s: %(state)s!", "offline": "離線"}


def test_a_sentence_is_translated_with_the_sentences_in_it():
    """Its values keep their places; text from elsewhere, also with a percent sign, stays as it is."""
    sentence = Sentence("%(what)s is %(state)s", what="100%s", state=Sentence("offline"))
    assert sentence == "100%s is offline"
    assert sentence.translated(lambda text: CATALOGUE.get(text, text)) == "100%s: 離線!"
    assert Sentence("100 %").translated(str) == "100 %"


def test_an_error_of_sentences_is_plain_text():
    """What is written to logs and messages is a string and nothing else, which every encoder takes."""
    assert type(str(PermanentError(Sentence("no photo was chosen")))) is str
