"""The gRPC services: map requests to the repository, and ServingError to gRPC status."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

import grpc
from google.protobuf.message import Message

from edge.modelserver import config
from edge.modelserver.models.repository import Repository
from edge.modelserver.models.servable import Servable
from edge.modelserver.monitoring.request_metrics import RequestMetrics
from edge.modelserver.requests import examples
from edge.modelserver.requests import predict as predicting
from edge.modelserver.requests.predict import Runner
from edge.modelserver.status import Code, ServingError, truncate
from edge.serving import messages_pb2 as messages
from schemas.litert import VARIANT_METADATA

_STATUS = {code.value[0]: code for code in grpc.StatusCode}
_NO_DEADLINE_S = 365 * 24 * 3600.0  # gRPC reports the absence of a deadline as one centuries ahead
_SIGNATURE_DEF = "signature_def"
_PACKAGE = "tensorflow.serving"

_Methods = Mapping[str, tuple[Callable[..., Any], type[Message]]]
_Request = (
    messages.PredictRequest
    | messages.ClassificationRequest
    | messages.RegressionRequest
    | messages.GetModelMetadataRequest
)


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


def _check_spec(request: Message) -> None:
    if not request.HasField("model_spec"):
        raise ServingError(Code.INVALID_ARGUMENT, "Missing ModelSpec")


class PredictionService:
    """Predict, Classify, Regress and GetModelMetadata.

    Args:
        repository: finds the version of a request.
        runner: runs it.
        metrics: counts the requests that run a signature.
    """

    def __init__(self, repository: Repository, runner: Runner, metrics: RequestMetrics) -> None:
        self._repository = repository
        self._runner = runner
        self._metrics = metrics

    def Predict(  # noqa: N802 - name of the RPC
        self, request: messages.PredictRequest, context: grpc.ServicerContext
    ) -> messages.PredictResponse:
        """Run a signature on tensors."""
        with _abort_on_error(context), self._run("Predict", request) as servable:
            if servable.variant:  # not in the response, which is that of other servers
                context.set_trailing_metadata(((VARIANT_METADATA, servable.variant),))
            return predicting.predict(servable, request, self._runner, _timeout_s(context))

    def Classify(  # noqa: N802 - name of the RPC
        self, request: messages.ClassificationRequest, context: grpc.ServicerContext
    ) -> messages.ClassificationResponse:
        """Run a classification signature on tf.Example messages."""
        with _abort_on_error(context), self._run("Classify", request) as servable:
            return examples.classify(servable, request, self._runner, _timeout_s(context))

    def Regress(  # noqa: N802 - name of the RPC
        self, request: messages.RegressionRequest, context: grpc.ServicerContext
    ) -> messages.RegressionResponse:
        """Run a regression signature on tf.Example messages."""
        with _abort_on_error(context), self._run("Regress", request) as servable:
            return examples.regress(servable, request, self._runner, _timeout_s(context))

    def MultiInference(  # noqa: N802 - name of the RPC
        self, request: bytes, context: grpc.ServicerContext
    ) -> bytes:
        """Refuse the call: several signatures in one request are not supported."""
        del request
        _abort(context, Code.UNIMPLEMENTED, "MultiInference is not supported by this model server")

    def GetModelMetadata(  # noqa: N802 - name of the RPC
        self, request: messages.GetModelMetadataRequest, context: grpc.ServicerContext
    ) -> messages.GetModelMetadataResponse:
        """Return the signatures of a version."""
        with _abort_on_error(context):
            _check_spec(request)
            _check_fields(request)
            with self._use(request) as servable:
                return _metadata(servable)

    @contextmanager
    def _run(self, api: str, request: _Request) -> Iterator[Servable]:
        """Hold the version of a request that is counted."""
        with self._metrics.measured(api, request.model_spec.name), self._use(request) as servable:
            yield servable

    @contextmanager
    def _use(self, request: _Request) -> Iterator[Servable]:
        _check_spec(request)
        with self._repository.use(request.model_spec.name, *_version_choice(request.model_spec)) as servable:
            yield servable


def _version_choice(spec: messages.ModelSpec) -> tuple[int | None, str | None]:
    choice = spec.WhichOneof("version_choice")
    return (
        spec.version.value if choice == "version" else None,
        spec.version_label if choice == "version_label" else None,
    )


def _check_fields(request: messages.GetModelMetadataRequest) -> None:
    if not request.metadata_field:
        raise ServingError(
            Code.INVALID_ARGUMENT, "GetModelMetadataRequest must specify at least one metadata_field"
        )
    for name in request.metadata_field:
        if name != _SIGNATURE_DEF:
            # tensorflow_model_server does not fill in the placeholder either; clients see the same text.
            raise ServingError(Code.INVALID_ARGUMENT, f"Metadata field %s is not supported{name}")


def _metadata(servable: Servable) -> messages.GetModelMetadataResponse:
    response = messages.GetModelMetadataResponse()
    response.model_spec.name = servable.name
    response.model_spec.version.value = servable.version
    signatures = messages.SignatureDefMap()
    for name, definition in servable.signature_defs.items():
        signatures.signature_def[name].CopyFrom(definition)
    # Not Pack(), which would write the name that the message has here.
    response.metadata[_SIGNATURE_DEF].type_url = f"type.googleapis.com/{_PACKAGE}.SignatureDefMap"
    response.metadata[_SIGNATURE_DEF].value = signatures.SerializeToString()
    return response


class ModelService:
    """GetModelStatus and HandleReloadConfigRequest.

    Args:
        repository: the models.
        stopping: returns True once the server is shutting down: reloads stop waiting.
        pool: answers GetModelStatus, apart from the threads that decode images.
    """

    def __init__(
        self, repository: Repository, stopping: Callable[[], bool], pool: ThreadPoolExecutor
    ) -> None:
        self._repository = repository
        self._stopping = stopping
        # gRPC runs a method that has this attribute in the pool given there. With all other threads occupied
        # by slow images, a server that works could not even report its status.
        status = partial(self.GetModelStatus)
        status.experimental_thread_pool = pool  # type: ignore[attr-defined]  # partial objects take attributes
        self.GetModelStatus = status  # type: ignore[method-assign]  # what the generated code registers

    def GetModelStatus(  # noqa: N802 - name of the RPC
        self, request: messages.GetModelStatusRequest, context: grpc.ServicerContext
    ) -> messages.GetModelStatusResponse:
        """Return the state of a model's versions."""
        with _abort_on_error(context):
            _check_spec(request)
            name = request.model_spec.name
            version, label = _version_choice(request.model_spec)
            if label is not None:
                version = self._repository.version_of_label(name, label)
            response = messages.GetModelStatusResponse()
            for number, state, error in self._repository.status(name, version):
                added = response.model_version_status.add(version=number, state=int(state))
                added.status.error_code = int(error.code) if error else int(Code.OK)
                added.status.error_message = error.message if error else ""
            return response

    def HandleReloadConfigRequest(  # noqa: N802 - name of the RPC
        self, request: messages.ReloadConfigRequest, context: grpc.ServicerContext
    ) -> messages.ReloadConfigResponse:
        """Replace the list of models."""
        with _abort_on_error(context):
            if request.config.WhichOneof("config") != "model_config_list":
                raise ServingError(
                    Code.INVALID_ARGUMENT,
                    "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                    "Only ModelConfigList is currently supported",
                )
            configs = config.from_proto(request.config.model_config_list)
            # A client that left frees the thread; the reload itself continues.
            self._repository.reload(configs, is_cancelled=lambda: self._stopping() or not context.is_active())
            response = messages.ReloadConfigResponse()
            response.status.error_code = int(Code.OK)
            return response


def add_services(server: grpc.Server, prediction: PredictionService, models: ModelService) -> None:
    """Register both services under the names of TensorFlow Serving."""
    predictions: _Methods = {
        "Predict": (prediction.Predict, messages.PredictRequest),
        "Classify": (prediction.Classify, messages.ClassificationRequest),
        "Regress": (prediction.Regress, messages.RegressionRequest),
        "GetModelMetadata": (prediction.GetModelMetadata, messages.GetModelMetadataRequest),
    }
    management: _Methods = {
        "GetModelStatus": (models.GetModelStatus, messages.GetModelStatusRequest),
        "HandleReloadConfigRequest": (models.HandleReloadConfigRequest, messages.ReloadConfigRequest),
    }
    raw = grpc.unary_unary_rpc_method_handler(prediction.MultiInference)  # refused without parsing
    server.add_generic_rpc_handlers(
        (
            _service("PredictionService", {**_handlers(predictions), "MultiInference": raw}),
            _service("ModelService", _handlers(management)),
        )
    )


def _service(name: str, handlers: Mapping[str, Any]) -> Any:
    return grpc.method_handlers_generic_handler(f"{_PACKAGE}.{name}", handlers)


def _handlers(methods: _Methods) -> dict[str, Any]:
    return {
        name: grpc.unary_unary_rpc_method_handler(
            method, request_deserializer=request.FromString, response_serializer=_serialize
        )
        for name, (method, request) in methods.items()
    }


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
