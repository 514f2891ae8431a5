"""The gRPC services: who is asked, what is answered, and errors turned into statuses. No decisions."""

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
from edge.modelserver.status import Code, ServingError, cut

_STATUS = {code.value[0]: code for code in grpc.StatusCode}
_NO_DEADLINE_S = 365 * 24 * 3600.0
_SIGNATURE_DEF = "signature_def"


@contextmanager
def _answering(context: grpc.ServicerContext) -> Iterator[None]:
    """Turn a ServingError into the status of the call."""
    try:
        yield
    except ServingError as error:
        _abort(context, error.code, error.message)


def _abort(context: grpc.ServicerContext, code: Code, message: str) -> NoReturn:
    context.abort(_STATUS[int(code)], cut(message))
    raise AssertionError("abort raises")


def _timeout_s(context: grpc.ServicerContext) -> float | None:
    """Give the time left to the client's deadline, in seconds; None where it set none."""
    left_s: float | None = context.time_remaining()
    return None if left_s is None or left_s > _NO_DEADLINE_S else left_s


def _check_spec(request: object) -> None:
    if not request.HasField("model_spec"):  # type: ignore[attr-defined]  # every request message has it
        raise ServingError(Code.INVALID_ARGUMENT, "Missing ModelSpec")


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):  # type: ignore[misc]  # it ships no types
    """Predict, Classify, Regress and GetModelMetadata.

    Args:
        repository: finds the version a request means.
        runner: runs it.
    """

    def __init__(self, repository: Repository, runner: Runner) -> None:
        self._repository = repository
        self._runner = runner

    def Predict(  # noqa: N802 - the service's word
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        """Run a signature on tensors."""
        with _answering(context), self._use(request) as servable:
            return predicting.predict(servable, request, self._runner, _timeout_s(context))

    def Classify(  # noqa: N802 - the service's word
        self, request: classification_pb2.ClassificationRequest, context: grpc.ServicerContext
    ) -> classification_pb2.ClassificationResponse:
        """Run a classification signature on tf.Example messages."""
        with _answering(context), self._use(request) as servable:
            return examples.classify(servable, request, self._runner, _timeout_s(context))

    def Regress(  # noqa: N802 - the service's word
        self, request: regression_pb2.RegressionRequest, context: grpc.ServicerContext
    ) -> regression_pb2.RegressionResponse:
        """Run a regression signature on tf.Example messages."""
        with _answering(context), self._use(request) as servable:
            return examples.regress(servable, request, self._runner, _timeout_s(context))

    def MultiInference(  # noqa: N802 - the service's word
        self, request: inference_pb2.MultiInferenceRequest, context: grpc.ServicerContext
    ) -> inference_pb2.MultiInferenceResponse:
        """Say that several signatures in one call are not offered here."""
        del request
        _abort(context, Code.UNIMPLEMENTED, "MultiInference is not offered by the embedded model server")

    def GetModelMetadata(  # noqa: N802 - the service's word
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, context: grpc.ServicerContext
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Tell the signatures of a version."""
        with _answering(context):
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
            # The server that this one stands in for never filled in its placeholder either.
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
        stopping: True once the server is going down: no reload waits any longer.
    """

    def __init__(self, repository: Repository, stopping: Callable[[], bool]) -> None:
        self._repository = repository
        self._stopping = stopping

    def GetModelStatus(  # noqa: N802 - the service's word
        self, request: get_model_status_pb2.GetModelStatusRequest, context: grpc.ServicerContext
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Tell the state of a model's versions."""
        with _answering(context):
            _check_spec(request)
            name = request.model_spec.name
            version, label = _version_choice(request.model_spec)
            if label is not None:
                version = self._repository.labelled(name, label)
            response = get_model_status_pb2.GetModelStatusResponse()
            for number, state, error in self._repository.status(name, version):
                told = response.model_version_status.add(version=number, state=int(state))
                told.status.error_code = int(error.code) if error else int(Code.OK)
                told.status.error_message = error.message if error else ""
            return response

    def HandleReloadConfigRequest(  # noqa: N802 - the service's word
        self, request: model_management_pb2.ReloadConfigRequest, context: grpc.ServicerContext
    ) -> model_management_pb2.ReloadConfigResponse:
        """Replace the list of models."""
        with _answering(context):
            if request.config.WhichOneof("config") != "model_config_list":
                raise ServingError(
                    Code.INVALID_ARGUMENT,
                    "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                    "Only ModelConfigList is currently supported",
                )
            configs = config.from_proto(request.config.model_config_list)
            self._repository.reload(configs, abandoned=lambda: self._stopping() or not context.is_active())
            response = model_management_pb2.ReloadConfigResponse()
            response.status.error_code = int(Code.OK)
            return response
