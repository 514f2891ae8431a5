"""The gRPC services: map requests to the repository, and ServingError to gRPC status."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import grpc
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from edge.modelserver import config, examples
from edge.modelserver import predict as predicting
from edge.modelserver.predict import Runner
from edge.modelserver.repository import Repository
from edge.modelserver.servable import Servable
from edge.modelserver.status import Code, ServingError, truncate

_STATUS = {code.value[0]: code for code in grpc.StatusCode}
_NO_DEADLINE_S = 365 * 24 * 3600.0  # gRPC reports the absence of a deadline as one centuries ahead
_SIGNATURE_DEF = "signature_def"


@contextmanager
def _abort_on_error(context: grpc.ServicerContext) -> Iterator[None]:
    """Abort the call with the status of a ServingError."""
    try:
        yield
    except ServingError as error:
        _abort(context, error.code, error.message)


def _abort(context: grpc.ServicerContext, code: Code, message: str) -> NoReturn:
    context.abort(_STATUS[int(code)], truncate(message))
    raise AssertionError("abort raises")


def _timeout_s(context: grpc.ServicerContext) -> float | None:
    """Return the seconds left until the client's deadline; None for no deadline."""
    left_s: float | None = context.time_remaining()
    return None if left_s is None or left_s > _NO_DEADLINE_S else left_s


def _check_spec(request: object) -> None:
    if not request.HasField("model_spec"):  # type: ignore[attr-defined]  # every request has the field
        raise ServingError(Code.INVALID_ARGUMENT, "Missing ModelSpec")


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):  # type: ignore[misc]  # it ships no types
    """Predict, Classify, Regress and GetModelMetadata.

    Args:
        repository: finds the version of a request.
        runner: runs it.
    """

    def __init__(self, repository: Repository, runner: Runner) -> None:
        self._repository = repository
        self._runner = runner

    def Predict(  # noqa: N802 - name of the RPC
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        """Run a signature on tensors."""
        with _abort_on_error(context), self._use(request) as servable:
            return predicting.predict(servable, request, self._runner, _timeout_s(context))

    def Classify(  # noqa: N802 - name of the RPC
        self, request: classification_pb2.ClassificationRequest, context: grpc.ServicerContext
    ) -> classification_pb2.ClassificationResponse:
        """Run a classification signature on tf.Example messages."""
        with _abort_on_error(context), self._use(request) as servable:
            return examples.classify(servable, request, self._runner, _timeout_s(context))

    def Regress(  # noqa: N802 - name of the RPC
        self, request: regression_pb2.RegressionRequest, context: grpc.ServicerContext
    ) -> regression_pb2.RegressionResponse:
        """Run a regression signature on tf.Example messages."""
        with _abort_on_error(context), self._use(request) as servable:
            return examples.regress(servable, request, self._runner, _timeout_s(context))

    def MultiInference(  # noqa: N802 - name of the RPC
        self, request: inference_pb2.MultiInferenceRequest, context: grpc.ServicerContext
    ) -> inference_pb2.MultiInferenceResponse:
        """Refuse the call: several signatures in one request are not supported."""
        del request
        _abort(context, Code.UNIMPLEMENTED, "MultiInference is not supported by this model server")

    def GetModelMetadata(  # noqa: N802 - name of the RPC
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, context: grpc.ServicerContext
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Return the signatures of a version."""
        with _abort_on_error(context):
            _check_spec(request)
            _check_fields(request)
            with self._use(request) as servable:
                return _metadata(servable)

    @contextmanager
    def _use(self, request: predict_pb2.PredictRequest) -> Iterator[Servable]:
        _check_spec(request)
        with self._repository.use(request.model_spec.name, *_version_choice(request.model_spec)) as servable:
            yield servable


def _version_choice(spec: model_pb2.ModelSpec) -> tuple[int | None, str | None]:
    choice = spec.WhichOneof("version_choice")
    return (
        spec.version.value if choice == "version" else None,
        spec.version_label if choice == "version_label" else None,
    )


def _check_fields(request: get_model_metadata_pb2.GetModelMetadataRequest) -> None:
    if not request.metadata_field:
        raise ServingError(
            Code.INVALID_ARGUMENT, "GetModelMetadataRequest must specify at least one metadata_field"
        )
    for name in request.metadata_field:
        if name != _SIGNATURE_DEF:
            # tensorflow_model_server does not fill in the placeholder either; clients see the same text.
            raise ServingError(Code.INVALID_ARGUMENT, f"Metadata field %s is not supported{name}")


def _metadata(servable: Servable) -> get_model_metadata_pb2.GetModelMetadataResponse:
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = servable.name
    response.model_spec.version.value = servable.version
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for name, definition in servable.signature_defs.items():
        signatures.signature_def[name].CopyFrom(definition)
    response.metadata[_SIGNATURE_DEF].Pack(signatures)
    return response


class ModelService(model_service_pb2_grpc.ModelServiceServicer):  # type: ignore[misc]  # it ships no types
    """GetModelStatus and HandleReloadConfigRequest.

    Args:
        repository: the models.
        stopping: returns True once the server is shutting down: reloads stop waiting.
    """

    def __init__(self, repository: Repository, stopping: Callable[[], bool]) -> None:
        self._repository = repository
        self._stopping = stopping

    def GetModelStatus(  # noqa: N802 - name of the RPC
        self, request: get_model_status_pb2.GetModelStatusRequest, context: grpc.ServicerContext
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Return the state of a model's versions."""
        with _abort_on_error(context):
            _check_spec(request)
            name = request.model_spec.name
            version, label = _version_choice(request.model_spec)
            if label is not None:
                version = self._repository.version_of_label(name, label)
            response = get_model_status_pb2.GetModelStatusResponse()
            for number, state, error in self._repository.status(name, version):
                added = response.model_version_status.add(version=number, state=int(state))
                added.status.error_code = int(error.code) if error else int(Code.OK)
                added.status.error_message = error.message if error else ""
            return response

    def HandleReloadConfigRequest(  # noqa: N802 - name of the RPC
        self, request: model_management_pb2.ReloadConfigRequest, context: grpc.ServicerContext
    ) -> model_management_pb2.ReloadConfigResponse:
        """Replace the list of models."""
        with _abort_on_error(context):
            if request.config.WhichOneof("config") != "model_config_list":
                raise ServingError(
                    Code.INVALID_ARGUMENT,
                    "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                    "Only ModelConfigList is currently supported",
                )
            configs = config.from_proto(request.config.model_config_list)
            # A client that left frees the thread; the reload itself goes on.
            self._repository.reload(configs, is_cancelled=lambda: self._stopping() or not context.is_active())
            response = model_management_pb2.ReloadConfigResponse()
            response.status.error_code = int(Code.OK)
            return response
