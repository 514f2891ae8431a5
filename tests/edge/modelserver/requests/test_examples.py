"""Classify and Regress, on a model with the signatures for them."""

from typing import Any

import pytest
import tensorflow as tf
from tensorflow_serving.apis import classification_pb2, inference_pb2, regression_pb2

from tests.conftest import DEADLINE_S

pytestmark = pytest.mark.graph  # LiteRT has no operation that parses tf.Example


@pytest.fixture
def example() -> Any:
    """A maker of tf.Example messages with one feature, x."""

    def make(x: float) -> Any:
        value = tf.train.Feature(float_list=tf.train.FloatList(value=[x]))
        return tf.train.Example(features=tf.train.Features(feature={"x": value}))

    return make


def _request(kind: str, signature: str, examples: list[Any]) -> Any:
    types = {
        "Classify": classification_pb2.ClassificationRequest,
        "Regress": regression_pb2.RegressionRequest,
    }
    request = types[kind]()
    request.model_spec.name = "examples"
    request.model_spec.signature_name = signature
    request.input.example_list.examples.extend(examples)
    return request


def test_classify_returns_labels_and_scores(client: Any, example: Any) -> None:
    """Each example gets the labels and scores of its classes."""
    request = _request("Classify", "classify", [example(1.0), example(0.5)])
    response = client.prediction.Classify(request, timeout=DEADLINE_S)
    rows = [[(c.label, c.score) for c in row.classes] for row in response.result.classifications]
    assert rows == [[("cat", 0.5), ("dog", 0.5)], [("cat", 0.25), ("dog", 0.75)]]
    assert response.model_spec.version.value == 1


def test_classify_without_labels(client: Any, example: Any) -> None:
    """A signature without class names returns scores with empty labels."""
    response = client.prediction.Classify(_request("Classify", "scores", [example(1.0)]), timeout=DEADLINE_S)
    assert [(c.label, c.score) for c in response.result.classifications[0].classes] == [("", 0.5), ("", 0.5)]


def test_a_shared_context_is_part_of_each_example(client: Any, example: Any) -> None:
    """With example_list_with_context, an example has the features of the context that it lacks."""
    request = _request("Classify", "scores", [])
    request.input.example_list_with_context.context.CopyFrom(example(1.0))
    request.input.example_list_with_context.examples.extend([tf.train.Example(), example(0.5)])
    response = client.prediction.Classify(request, timeout=DEADLINE_S)
    assert [row.classes[0].score for row in response.result.classifications] == [0.5, 0.25]


def test_regress_returns_a_value_per_example(client: Any, example: Any) -> None:
    """Each example gets its value."""
    response = client.prediction.Regress(
        _request("Regress", "regress", [example(3.0), example(1.0)]), timeout=DEADLINE_S
    )
    assert [regression.value for regression in response.result.regressions] == [1.5, 0.5]


@pytest.mark.parametrize(
    ("call", "count", "message"),
    [
        ("Classify nope", 1, "No signature was found with the name: nope"),
        ("Regress nope", 1, "No signature was found with the name: nope"),
        (
            "Classify regress",
            1,
            (
                "Expected classification signature method_name to be tensorflow/serving/classify. "
                "Was: tensorflow/serving/regress"
            ),
        ),
        (
            "Regress serving_default",
            1,
            (
                "Expected regression signature method_name to be tensorflow/serving/regress. "
                "Was: tensorflow/serving/predict"
            ),
        ),
        ("Classify classify", 0, "Input is empty."),
        ("Regress regress", 0, "Input is empty."),
    ],
)
def test_each_error_has_its_message(client: Any, failure: Any, call: str, count: int, message: str) -> None:
    """A missing signature, one of another method, or no examples: INVALID_ARGUMENT."""
    kind, signature = call.split()
    request = _request(kind, signature, [tf.train.Example()] * count)
    got = failure(lambda: getattr(client.prediction, kind)(request, timeout=DEADLINE_S))
    assert got == ("INVALID_ARGUMENT", message)


def test_multi_inference_is_not_supported(client: Any, failure: Any) -> None:
    """MultiInference gets UNIMPLEMENTED."""
    request = inference_pb2.MultiInferenceRequest()
    assert (
        failure(lambda: client.prediction.MultiInference(request, timeout=DEADLINE_S))[0] == "UNIMPLEMENTED"
    )
