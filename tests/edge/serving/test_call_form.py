"""How a model is called, by its signature."""

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.serving import messages_pb2 as messages
from edge.serving.call_form import CallForm, SignatureError, find_form, softmax

FLOAT, INT, STRING = 1, 3, 7
PHOTOS = {"image": (STRING, [-1])}
SCORES = {"probabilities": (FLOAT, [-1, 2])}


def signatures(inputs, outputs, name="serving_default"):
    signature = messages.SignatureDef()
    for tensors, described in ((signature.inputs, inputs), (signature.outputs, outputs)):
        for key, (dtype, shape) in described.items():
            tensors[key].dtype = dtype
            if shape is None:
                tensors[key].tensor_shape.unknown_rank = True
            else:
                for size in shape:
                    tensors[key].tensor_shape.dim.add().size = size
    return {name: signature}


@pytest.mark.parametrize(
    ("inputs", "outputs", "scores", "form"),
    [
        (PHOTOS, SCORES, None, CallForm()),
        (PHOTOS, {**SCORES, "embedding": (FLOAT, [-1, 9]), "novelty": (FLOAT, [-1])}, None, CallForm()),
        ({"b64": (STRING, [-1])}, {"logits": (FLOAT, [-1, 2])}, None, CallForm("b64", "logits", logits=True)),
        ({"x": (STRING, None)}, {"output_0": (FLOAT, [-1, 2])}, None, CallForm("x", "output_0")),
        (PHOTOS, {"output_0": (FLOAT, [-1, 2])}, "logits", CallForm("image", "output_0", logits=True)),
        (PHOTOS, {"a": (FLOAT, [-1, 5]), "b": (FLOAT, [-1, 2])}, None, CallForm("image", "b")),
        (PHOTOS, {"b": (FLOAT, [-1, 2]), "n": (INT, [-1])}, None, CallForm("image", "b")),
        (PHOTOS, {"b": (FLOAT, [-1, 2]), "boxes": (FLOAT, [-1, 9, 4])}, None, CallForm("image", "b")),
        (PHOTOS, {"probabilities": (FLOAT, None)}, None, CallForm()),
        (PHOTOS, {"probabilities": (FLOAT, [-1, -1])}, None, CallForm()),
    ],
)  # fmt: skip
def test_forms_that_can_be_called(inputs, outputs, scores, form):
    """Any name of the only string input, and any output that can only be the scores."""
    assert find_form(signatures(inputs, outputs), 2, scores) == form


@pytest.mark.parametrize(
    ("inputs", "outputs", "match"),
    [
        ({"x": (FLOAT, [-1, 224, 224, 3])}, SCORES, r"it takes x float32\[\?,224,224,3\], not encoded"),
        ({"x": (STRING, [])}, SCORES, r"it takes x string\[\], not"),
        ({**PHOTOS, "size": (INT, [-1])}, SCORES, r"string\[\?\], size int32\[\?\], not photos alone"),
        ({}, SCORES, "it takes nothing"),
        (PHOTOS, {"probabilities": (FLOAT, [-1, 3])}, "it gives 3 scores .* for 2 class names"),
        (PHOTOS, {"boxes": (FLOAT, [-1, 9, 4])}, r"it gives boxes float32\[\?,9,4\], and none"),
        (PHOTOS, {"a": (FLOAT, [-1, 2]), "b": (FLOAT, [-1, 2])}, "none of them is called"),
        (PHOTOS, {}, "it gives nothing"),
    ],
)  # fmt: skip
def test_forms_that_cannot_be_called(inputs, outputs, match):
    """The error has the model's inputs or outputs, and what to do."""
    with pytest.raises(SignatureError, match=match) as caught:
        find_form(signatures(inputs, outputs), 2)
    assert caught.value.hint is not None


def test_another_signature_is_no_serving_signature():
    """Only serving_default is called."""
    with pytest.raises(SignatureError, match="no signature serving_default, but classify"):
        find_form(signatures(PHOTOS, SCORES, "classify"), 2)
    with pytest.raises(SignatureError, match="but none"):
        find_form({}, 2)


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=9))
def test_softmax(row):
    """Any finite logits give probabilities that sum to 1 and keep the best class."""
    values = softmax(array("f", row))
    assert sum(values) == pytest.approx(1, abs=1e-5)
    assert values[row.index(max(row))] == max(values)
