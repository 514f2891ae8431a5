"""Metadata, status and reload over the wire."""

from typing import Any

import pytest
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
    regression_pb2,
)

from tests.conftest import DEADLINE_S


def _metadata(client: Any, name: str, *fields: str) -> Any:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    request.model_spec.name = name
    return client.prediction.GetModelMetadata(request, timeout=DEADLINE_S)


def test_metadata_has_the_signatures(client: Any) -> None:
    """The field signature_def has each signature with its inputs and outputs."""
    response = _metadata(client, "pets", "signature_def")
    assert (response.model_spec.name, response.model_spec.version.value) == ("pets", 1)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    serving = signatures.signature_def["serving_default"]
    assert set(serving.inputs) == {"image"}
    assert set(serving.outputs) == {"embedding", "probabilities"}
    assert serving.method_name == "tensorflow/serving/predict"


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        (
            "pets",
            [],
            ("INVALID_ARGUMENT", "GetModelMetadataRequest must specify at least one metadata_field"),
        ),
        ("pets", ["assets"], ("INVALID_ARGUMENT", "Metadata field %s is not supportedassets")),
        ("m", ["signature_def"], ("NOT_FOUND", "Servable not found for request: Latest(m)")),
        ("", ["signature_def"], ("INVALID_ARGUMENT", "ModelSpec has no name specified.")),
    ],
)
def test_invalid_metadata_requests(
    client: Any, failure: Any, name: str, fields: list[str], expected: tuple[str, str]
) -> None:
    """Only the field signature_def of an available model may be requested."""
    assert failure(lambda: _metadata(client, name, *fields)) == expected


def test_status_of_an_available_version(client: Any) -> None:
    """An available version has the state AVAILABLE and no error."""
    assert client.status("half") == {1: ("AVAILABLE", 0, "")}
    assert client.status("half", 1) == {1: ("AVAILABLE", 0, "")}


@pytest.mark.parametrize(
    ("name", "version", "message"),
    [
        ("m", None, "Could not find any versions of model m"),
        ("m", 9, "Could not find version 9 of model m"),
        ("half", 9, "Could not find version 9 of model half"),
    ],
)
def test_status_of_an_unknown_model_or_version(
    client: Any, failure: Any, name: str, version: int | None, message: str
) -> None:
    """An unknown model or version is NOT_FOUND."""
    assert failure(lambda: client.status(name, version)) == ("NOT_FOUND", message)


@pytest.mark.parametrize("call", ["Predict", "Classify", "Regress", "GetModelMetadata", "GetModelStatus"])
def test_every_call_needs_a_model_spec(client: Any, failure: Any, call: str) -> None:
    """Each call fails in the same way without model_spec."""
    requests = {
        "Predict": (client.prediction, predict_pb2.PredictRequest()),
        "Classify": (client.prediction, classification_pb2.ClassificationRequest()),
        "Regress": (client.prediction, regression_pb2.RegressionRequest()),
        "GetModelMetadata": (client.prediction, get_model_metadata_pb2.GetModelMetadataRequest()),
        "GetModelStatus": (client.models, get_model_status_pb2.GetModelStatusRequest()),
    }
    stub, request = requests[call]
    got = failure(lambda: getattr(stub, call)(request, timeout=DEADLINE_S))
    assert got == ("INVALID_ARGUMENT", "Missing ModelSpec")


def test_a_reload_adds_and_removes_models(site: Any, failure: Any, eventually: Any) -> None:
    """A reload replaces the list: a new model is available when it returns, a model left out is unloaded."""
    site.place("half+3", 1)
    response = site.serve_as("added")
    assert (response.status.error_code, response.status.error_message) == (0, "")
    assert site.client.half("added", [2.0]) == [4.0]
    site.serve()
    eventually(lambda: site.client.states("added") == {1: "END"}, "the model left out unloaded")
    assert failure(lambda: site.client.half("added", [2.0])) == (
        "NOT_FOUND",
        "Servable not found for request: Latest(added)",
    )
    assert site.client.half("half", [2.0]) == [3.0]
    site.serve_as("added")
    assert site.client.half("added", [2.0]) == [4.0]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            "",
            (
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported"
            ),
        ),
        (
            'model_config_list { config { name: "a" base_path: "/a" } config { name: "a" } }',
            "Illegal to list model a multiple times in config list",
        ),
        (
            'model_config_list { config { name: "a" base_path: "models/a" } }',
            "Expected model a to have an absolute path or URI; got base_path()=models/a",
        ),
    ],
)
def test_an_invalid_reload_changes_nothing(client: Any, failure: Any, config: str, message: str) -> None:
    """An invalid list is refused, and the available models stay."""
    assert failure(lambda: client.reload(config)) == ("INVALID_ARGUMENT", message)
    assert client.half("half", [2.0]) == [3.0]


def test_a_reload_reports_a_new_model_that_cannot_be_loaded(site: Any, failure: Any) -> None:
    """If all versions of a new model fail, the reload fails with UNKNOWN and the reason."""
    (site.path / "7").mkdir()
    code, message = failure(lambda: site.serve_as("broken"))
    assert code == "UNKNOWN"
    assert message == (
        "1 model(s) did not become available: {{{name: broken version: 7} due to error: NOT_FOUND: Could not "
        f"find SavedModel .pb or .pbtxt at supplied export directory path: {site.path}/7}}, }}"
    )
    assert site.client.half("half", [2.0]) == [3.0]


def test_a_reload_that_waits_can_be_cancelled(site: Any, entry: Any, failure: Any) -> None:
    """A reload waits for a missing base path; when its client leaves, the next reload proceeds."""
    late = entry("late", site.path / "not-yet")
    assert failure(lambda: site.serve(late, timeout=0.3))[0] == "DEADLINE_EXCEEDED"
    site.serve()
    assert site.client.half("half", [2.0]) == [3.0]


def test_labels_select_versions(site: Any, failure: Any, eventually: Any) -> None:
    """A label selects an available version and moves by reload, but not to an unavailable version."""
    site.place("half+2", 1)
    site.place("half+3", 2)
    both = "model_version_policy { all { } }"
    site.serve_as("labelled", both)
    eventually(lambda: site.client.states("labelled") == {1: "AVAILABLE", 2: "AVAILABLE"}, "both versions")
    label = 'version_labels {{ key: "{}" value: {} }}'
    site.serve_as("labelled", f"{both} {label.format('gold', 1)} {label.format('trial', 2)}")
    assert site.client.half("labelled", [2.0], label="gold") == [3.0]
    assert site.client.half("labelled", [2.0], label="trial") == [4.0]
    assert failure(lambda: site.serve_as("labelled", f"{both} {label.format('gold', 9)}")) == (
        "FAILED_PRECONDITION",
        (
            "Request to assign label to version 9 of model labelled, which is not currently available for "
            "inference"
        ),
    )
    assert site.client.half("labelled", [2.0], label="gold") == [3.0]
    site.serve_as("labelled", f"{both} {label.format('gold', 2)}")
    assert site.client.half("labelled", [2.0], label="gold") == [4.0]
    assert failure(lambda: site.client.half("labelled", [2.0], label="trial")) == (
        "INVALID_ARGUMENT",
        "Unrecognized servable version label: trial",
    )
