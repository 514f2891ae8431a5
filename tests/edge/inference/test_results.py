import math
from array import array
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.inference import results
from edge.inference.validation import Rejected
from edge.serving.client import BatchOutput, ModelOutputError
from edge.serving.prediction import Prediction, to_predictions
from schemas.codec import decode, encode
from schemas.messages import Photo
from schemas.topics import RESULT
from tests.nodes import NODE, photo_id

PHOTO = Photo(photo_id=photo_id(1), node=NODE, device="pi-1", image=b"x", taken_at_ms=5, historical=True)
NAMES = {"node": NODE, "device": "pi-1"}


def predictions(*rows: list[float]) -> BatchOutput:
    return BatchOutput(3, [array("f", row) for row in rows], [b""] * len(rows), [None] * len(rows))


def test_each_photo_of_a_batch_gets_its_own_row():
    """Row n of the model's answer goes to photo n, score k to class k."""
    answer = replace(predictions([0.75, 0.25], [0.125, 0.875]), novelties=[0.5, math.nan])
    said = to_predictions("pets", answer, ("cat", "dog"), 2.0)
    assert [(one.label, one.confidence) for one in said] == [("cat", 0.75), ("dog", 0.875)]
    assert [(one.novelty, one.temperature) for one in said] == [(0.5, 2.0), (1e6, 2.0)]


def test_an_answer_says_how_sure_the_model_is():
    """Raw confidence, margin, entropy and novelty are in the Result, rounded; what is unknown is absent."""
    said = Prediction("pets", 3, {"cat": 2 / 3, "dog": 1 / 3}, b"", novelty=1 / 3, temperature=2.0)
    answer = results.ok(PHOTO, said, "auto", 0.0)
    assert (answer.raw_confidence, answer.margin, answer.entropy) == (0.8, 0.333333, 0.918296)
    assert answer.novelty == 0.333333
    plain = results.ok(PHOTO, replace(said, novelty=None, temperature=None), "auto", 0.0)
    assert (plain.raw_confidence, plain.novelty) == (None, None)


def test_no_classes_at_all_are_the_models_fault():
    """An answer of width 0 and a file without names agree, and still nobody can use them."""
    with pytest.raises(ModelOutputError):
        to_predictions("pets", predictions([]), ())


def test_of_equals_the_first_class_is_the_label():
    """A tie has an answer, and always the same."""
    assert to_predictions("pets", predictions([0.5, 0.5]), ("cat", "dog"))[0].label == "cat"


@pytest.mark.parametrize("names", [None, (), ("cat",), ("cat", "dog", "bird")])
def test_class_names_that_do_not_fit_are_the_models_fault(names):
    """No or too many names make the model unfit; no photo is labelled with a guess."""
    with pytest.raises(ModelOutputError, match="expected 2 class names"):
        to_predictions("pets", predictions([0.5, 0.5]), names)


@given(st.lists(st.floats(width=32), min_size=2, max_size=5))
def test_any_scores_make_a_valid_answer(scores):
    """Infinite, negative or no number at all: the Result is one that every reader takes."""
    names = tuple(f"class-{number}" for number in range(len(scores)))
    said = to_predictions("pets", predictions(scores), names)[0]
    answer = results.ok(PHOTO, said, "auto", 0.0)
    assert decode(RESULT, encode(RESULT, answer), NAMES) == answer
    assert all(said.scores[name] == 0 for name, score in zip(names, scores, strict=True) if math.isnan(score))


def test_every_answer_names_its_photo():
    """Whatever the answer, it carries the photo's id, place and time, and a reason of bounded length."""
    rejected = results.rejected(Rejected(PHOTO, "too-large", "x" * 2000), 0.0)
    deferred = results.deferred(PHOTO, "y" * 2000, 0.0)
    for answer in (rejected, deferred):
        assert (answer.photo_id, answer.node, answer.device) == (photo_id(1), NODE, "pi-1")
        assert (answer.taken_at_ms, answer.historical) == (5, True)
        assert decode(RESULT, encode(RESULT, answer), NAMES) == answer
    assert (rejected.status, rejected.code, deferred.status) == ("rejected", "too-large", "deferred")
