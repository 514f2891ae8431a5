"""Predict over the wire with the stock stubs: outputs, and the exact code and message of each error."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from edge.serving.client import Predictor
from schemas.litert import FLOAT32
from tests.conftest import DEADLINE_S


def test_photos_get_probabilities_and_embeddings(client: Any, jpeg: bytes) -> None:
    """Encoded photos in; one row of probabilities and of embedding per photo out."""
    response = client.predict("pets", {"image": [jpeg, jpeg, jpeg]})
    probabilities, embedding = response.outputs["probabilities"], response.outputs["embedding"]
    assert [dim.size for dim in probabilities.tensor_shape.dim] == [3, 2]
    assert [dim.size for dim in embedding.tensor_shape.dim] == [3, 8]
    rows = np.array(probabilities.float_val).reshape(3, 2)
    assert rows.sum(axis=1) == pytest.approx([1, 1, 1], abs=1e-6)
    assert rows[0] == pytest.approx(rows[2])


def test_the_response_agrees_with_tensorflow(client: Any, saved: Any, jpeg: bytes) -> None:
    """The response has the values that TensorFlow computes from the same SavedModel."""
    expected = tf.saved_model.load(str(saved["photo"])).signatures["serving_default"](tf.constant([jpeg]))
    got = client.predict("pets", {"image": [jpeg]}).outputs
    for alias in ("probabilities", "embedding"):
        assert tf.make_ndarray(got[alias]) == pytest.approx(expected[alias].numpy(), rel=1e-5)


def test_a_response_has_float_val_and_model_spec(client: Any) -> None:
    """A response names model, version and signature, and has floats in float_val."""
    response = client.predict("half", {"x": [1.0, 2.0]})
    assert list(response.outputs["y"].float_val) == [2.5, 3.0]
    assert response.outputs["y"].tensor_content == b""
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("half", 1, "serving_default")


def test_inputs_may_be_content_or_values(client: Any) -> None:
    """An input is tensor_content or typed values; a single value is repeated to the shape."""
    packed = tf.make_tensor_proto(np.array([4.0, 6.0], np.float32))
    packed.ClearField("float_val")
    packed.tensor_content = np.array([4.0, 6.0], np.float32).tobytes()
    assert client.half("half", packed) == [4.0, 5.0]
    repeated = tf.make_tensor_proto([8.0])
    repeated.tensor_shape.dim[0].size = 3
    assert client.half("half", repeated) == [6.0, 6.0, 6.0]


@pytest.mark.own_process
async def test_an_answer_tells_its_variant(server: Any, runtime: str, jpeg: bytes) -> None:
    """By name in the trailing metadata, which clients may leave unread; a graph has none."""
    async with Predictor(f"127.0.0.1:{server.port}", "pets") as predictor:
        assert (await predictor.predict([jpeg])).variant == {"litert": FLOAT32}.get(runtime, "")


def test_output_filter_selects_the_outputs(client: Any) -> None:
    """With an output_filter only its outputs are returned."""
    request = client.request("half", {"x": [1.0]})
    request.output_filter.append("rows")
    assert set(client.prediction.Predict(request, timeout=DEADLINE_S).outputs) == {"rows"}


def test_a_request_may_select_a_version(client: Any) -> None:
    """A request may select a version by number."""
    assert client.half("half", [1.0], version=1) == [2.5]


def _predict(client: Any, request: Any) -> Any:
    return lambda: client.prediction.Predict(request, timeout=DEADLINE_S)


def _no_spec(client: Any) -> Any:
    request = client.request("half", {"x": [1.0]})
    request.ClearField("model_spec")
    return request


def _bad_tensor(client: Any) -> Any:
    proto = tf.make_tensor_proto([1.0])
    proto.tensor_content = b"12345"
    return client.request("pets", {"image": proto})


def _filtered(client: Any, *aliases: str) -> Any:
    request = client.request("half", {"x": [1.0]})
    request.output_filter.extend(aliases)
    return request


@pytest.mark.parametrize(
    ("make", "code", "message"),
    [
        pytest.param(_no_spec, "INVALID_ARGUMENT", "Missing ModelSpec", id="no model_spec"),
        pytest.param(
            lambda c: c.request("", {"x": [1.0]}),
            "INVALID_ARGUMENT",
            "ModelSpec has no name specified.",
            id="empty name",
        ),
        pytest.param(
            lambda c: c.request("m", {}), "NOT_FOUND", "Servable not found for request: Latest(m)", id="model"
        ),
        pytest.param(
            lambda c: c.request("half", {}, version=9),
            "NOT_FOUND",
            "Servable not found for request: Specific(half, 9)",
            id="version",
        ),
        pytest.param(
            lambda c: c.request("half", {"x": [1.0]}, "x"),
            "FAILED_PRECONDITION",
            'Serving signature key "x" not found.',
            id="signature",
        ),
        pytest.param(
            lambda c: c.request("pets", {}),
            "INVALID_ARGUMENT",
            "input size does not match signature: 0!=1 len({}) != len({image}). "
            "Sent extra: {}. Missing but required: {image}.",
            id="no input",
        ),
        pytest.param(
            lambda c: c.request("half", {"x": [1.0], "z": [1.0]}),
            "INVALID_ARGUMENT",
            "input size does not match signature: 2!=1 len({x,z}) != len({x}). "
            "Sent extra: {z}. Missing but required: {}.",
            id="one input too many",
        ),
        pytest.param(
            lambda c: c.request("pets", {"photo": ["x"]}),
            "INVALID_ARGUMENT",
            "Signature input alias: image(feed name: serving_default_image:0) not found in request and no "
            "default value provided. Inputs expected to be in the request {photo}, or default input alias "
            "set: ",
            id="wrong input name",
        ),
        pytest.param(_bad_tensor, "INVALID_ARGUMENT", "tensor parsing error: image", id="bad TensorProto"),
        pytest.param(
            lambda c: _filtered(c, "z"),
            "INVALID_ARGUMENT",
            "output tensor alias not found in signature: z Outputs expected to be in the set {rows,y}.",
            id="unknown output",
        ),
        pytest.param(
            lambda c: _filtered(c, "y", "y"),
            "INVALID_ARGUMENT",
            "duplicate output tensor alias: y",
            id="output twice",
        ),
        pytest.param(
            lambda c: c.request("half", {"x": np.array([1], np.uint8)}),
            "INVALID_ARGUMENT",
            "Type mismatch: actual uint8 vs. expect float",
            id="wrong dtype",
        ),
        pytest.param(
            lambda c: c.request("half", {"x": [1.0]}, label="gold"),
            "INVALID_ARGUMENT",
            "Unrecognized servable version label: gold",
            id="unknown label",
        ),
        pytest.param(
            lambda c: c.request("half", {"x": [1.0]}, "s" * 2000),
            "FAILED_PRECONDITION",
            f'Serving signature key "{"s" * 1001}...TRUNCATED',
            id="long message",
        ),
    ],
)
def test_each_error_has_its_status_and_message(
    client: Any, failure: Any, make: Any, code: str, message: str
) -> None:
    """An invalid request fails with the code and message of tensorflow_model_server."""
    assert failure(_predict(client, make(client))) == (code, message)


def test_a_corrupt_photo_fails_with_the_decoder_message(client: Any, failure: Any, jpeg: bytes) -> None:
    """An error in the graph is INVALID_ARGUMENT with the message of the kernel."""
    code, message = failure(_predict(client, client.request("pets", {"image": [jpeg, b"no photo"]})))
    assert code == "INVALID_ARGUMENT"
    assert message.startswith("Unknown image file format. One of JPEG, ")


@pytest.mark.graph
@pytest.mark.own_process
def test_a_deadline_ends_the_run(
    client: Any, server: Any, failure: Any, eventually: Any, tmp_path: Path
) -> None:
    """A request past its deadline fails with DEADLINE_EXCEEDED, and its run stops using the CPU."""
    (tmp_path / "done").touch()
    assert client.predict("half", {"path": [str(tmp_path / "done")]}, "held").outputs["found"].int_val
    endless = client.request("half", {"path": [str(tmp_path / "never")]}, "held")
    code, _ = failure(lambda: client.prediction.Predict(endless, timeout=0.3))
    assert code == "DEADLINE_EXCEEDED"

    def calm() -> bool:
        before_s = server.processor_s()
        threading.Event().wait(0.3)
        return bool(server.processor_s() - before_s < 0.1)

    eventually(calm, "the server at rest")


def test_large_messages_pass(client: Any) -> None:
    """Messages may be larger than gRPC's default limit of 4 MB, in both directions."""
    x = np.arange(2_000_000, dtype=np.float32)
    response = client.predict("half", {"x": x})
    assert np.array_equal(tf.make_ndarray(response.outputs["y"]), x * np.float32(0.5) + np.float32(2.0))
