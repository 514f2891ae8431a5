"""Results are built from predictions and rejections."""

import math
from array import array
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.inference.answers import results
from edge.inference.validation import Rejected
from edge.serving.client import BatchOutput, ModelOutputError
from edge.serving.prediction import Prediction, to_predictions
from schemas.codec import decode, encode
from schemas.messages import Photo
from schemas.topics import RESULT
from tests.nodes import NODE, photo_id

PHOTO = Photo(photo_id=photo_id(1), node=NODE, device="pi-1", image=b"x", taken_at_ms=5, historical=True)
NAMES = {"node": NODE, "device": "pi-1"}


def output(*rows: list[float]) -> BatchOutput:
    return BatchOutput(3, [array("f", row) for row in rows], [b""] * len(rows), [None] * len(rows))


def test_each_photo_of_a_batch_gets_its_own_row():
    """Row n of the output belongs to photo n, score k to class k."""
    batch = replace(output([0.75, 0.25], [0.125, 0.875]), novelties=[0.5, math.nan], variant="int8")
    predictions = to_predictions("pets", batch, ("cat", "dog"), 2.0)
    assert [(one.label, one.confidence) for one in predictions] == [("cat", 0.75), ("dog", 0.875)]
    assert [(one.novelty, one.temperature) for one in predictions] == [(0.5, 2.0), (1e6, 2.0)]
    assert [results.ok(PHOTO, one, "auto", 0.0).variant for one in predictions] == ["int8", "int8"]


def test_a_result_has_the_measures_of_uncertainty():
    """Raw confidence, margin, entropy and novelty are rounded; unknown ones are absent."""
    prediction = Prediction("pets", 3, {"cat": 2 / 3, "dog": 1 / 3}, b"", novelty=1 / 3, temperature=2.0)
    answer = results.ok(PHOTO, prediction, "auto", 0.0)
    assert (answer.raw_confidence, answer.margin, answer.entropy) == (0.8, 0.333333, 0.918296)
    assert answer.novelty == 0.333333
    plain = results.ok(PHOTO, replace(prediction, novelty=None, temperature=None), "auto", 0.0)
    assert (plain.raw_confidence, plain.novelty) == (None, None)


def test_no_classes_are_a_fault_of_the_model():
    """An output of width 0 is unusable, although it fits an empty list of names."""
    with pytest.raises(ModelOutputError):
        to_predictions("pets", output([]), ())


def test_the_first_of_equal_classes_is_the_label():
    """A tie always gives the same label."""
    assert to_predictions("pets", output([0.5, 0.5]), ("cat", "dog"))[0].label == "cat"


@pytest.mark.parametrize("names", [None, (), ("cat",), ("cat", "dog", "bird")])
def test_class_names_that_do_not_fit_are_a_fault_of_the_model(names):
    """Missing, too few or too many names raise; no photo gets a guessed label."""
    with pytest.raises(ModelOutputError, match="expected 2 class names"):
        to_predictions("pets", output([0.5, 0.5]), names)


@given(st.lists(st.floats(width=32), min_size=2, max_size=5))
def test_any_scores_make_a_valid_result(scores):
    """Infinite, negative or NaN scores give a result that every reader accepts."""
    names = tuple(f"class-{number}" for number in range(len(scores)))
    prediction = to_predictions("pets", output(scores), names)[0]
    answer = results.ok(PHOTO, prediction, "auto", 0.0)
    assert decode(RESULT, encode(RESULT, answer), NAMES) == answer
    assert all(
        prediction.scores[name] == 0 for name, score in zip(names, scores, strict=True) if math.isnan(score)
    )


def test_every_result_identifies_its_photo():
    """Id, node, device and time of the photo are in each result, and the reason is of bounded length."""
    rejected = results.rejected(Rejected(PHOTO, "too-large", "x" * 2000), 0.0)
    deferred = results.deferred(PHOTO, "y" * 2000, 0.0)
    for answer in (rejected, deferred):
        assert (answer.photo_id, answer.node, answer.device) == (photo_id(1), NODE, "pi-1")
        assert (answer.taken_at_ms, answer.historical) == (5, True)
        assert decode(RESULT, encode(RESULT, answer), NAMES) == answer
    assert (rejected.status, rejected.code, deferred.status) == ("rejected", "too-large", "deferred")
