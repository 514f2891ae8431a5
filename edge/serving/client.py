"""Client of TensorFlow Serving's gRPC API; the only importer of grpc in the edge handler.

The messages of `tensorflow-serving-api` are used without the TensorFlow runtime: 39 MB of resident memory
instead of 600.
"""

import importlib.util
import math
import sys
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

import grpc.aio

from schemas.errors import PermanentError, TransientError
from schemas.messages import MAX_TEXT_CHARS, ServedModel


def _import_stubs() -> tuple[Any, ...]:
    """Import messages and stubs without TensorFlow; a later `import tensorflow` still works."""
    # The messages import message files from the package `tensorflow`, whose `__init__` would load the
    # runtime. An empty package object with the real `__path__` finds those files and runs no `__init__`.
    stand_in = "tensorflow" not in sys.modules
    if stand_in:
        spec = importlib.util.find_spec("tensorflow")
        package = ModuleType("tensorflow")
        package.__path__ = list(spec.submodule_search_locations or ()) if spec else []
        sys.modules["tensorflow"] = package
    try:
        from tensorflow_serving.apis import (  # noqa: PLC0415  # only while the stand-in is in place
            get_model_status_pb2,
            model_management_pb2,
            model_service_pb2_grpc,
            predict_pb2,
            prediction_service_pb2_grpc,
        )
    finally:
        if stand_in:
            del sys.modules["tensorflow"]
    return (
        get_model_status_pb2,
        model_management_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_service_pb2_grpc,
    )


_status_pb2, _management_pb2, _model_service, _predict_pb2, _prediction_service = _import_stubs()

_DT_FLOAT = 1
_DT_STRING = 7
_MATRIX = 2
_AVAILABLE = 30  # GetModelStatus: ModelVersionStatus.State
_END = 50
_MISSING = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),  # a batch may exceed gRPC's default of 4 MB
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 200),  # gRPC's own back-off grows to two minutes
    ("grpc.max_reconnect_backoff_ms", 2000),
)
# A grey PNG of 16 x 16 pixels, the only image that the smoke test needs.
_GREY = bytes.fromhex(
    "89504e470d0a1a0a0000000d494844520000001000000010080200000090916836000000194944415478da63ac"
    "68ea6120053031900846358c6a183a1a00db8c01a69620e8710000000049454e44ae426082"
)


class ModelUnavailableError(TransientError):
    """The model server cannot answer now: it is down, overloaded, too slow, or lacks this model."""


class ModelMissingError(ModelUnavailableError):
    """The server is down, or does not serve this version now; the version is not at fault."""


class ModelOutputError(TransientError):
    """The model's output has the wrong form; another version of it may be right."""


class BadInputError(PermanentError):
    """The model server refuses an input of this call (INVALID_ARGUMENT), without saying which."""


@dataclass(frozen=True, slots=True)
class BatchOutput:
    """The output of one Predict call for N images.

    Args:
        version: Version that answered.
        probabilities: N rows of K class probabilities.
        embeddings: N embeddings, float32, little endian; empty if the model does not output them.
        novelties: N scaled distances to the nearest training photo; None if the model does not output them.
    """

    version: int
    probabilities: "list[array[float]]"  # quoted: `array` is not generic at run time
    embeddings: list[bytes]
    novelties: Sequence[float | None]


class Predictor:
    """A model on a model server.

    Args:
        address: `host:port` of the gRPC API.
        model: Its name there.
        timeout_s: Deadline of each call, in seconds.
    """

    def __init__(self, address: str, model: str, *, timeout_s: float = 30.0) -> None:
        self.address = address
        self.model = model
        self._timeout_s = timeout_s

    async def __aenter__(self) -> Self:
        """Create the channel; it connects with the first call."""
        self._channel = grpc.aio.insecure_channel(self.address, options=_CHANNEL_OPTIONS)
        self._predict = _prediction_service.PredictionServiceStub(self._channel).Predict
        models = _model_service.ModelServiceStub(self._channel)
        self._status, self._reload = models.GetModelStatus, models.HandleReloadConfigRequest
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the channel; calls under way are cancelled."""
        await self._channel.close()

    async def predict(
        self, images: Sequence[bytes], version: int | None = None, *, timeout_s: float | None = None
    ) -> BatchOutput:
        """Classify encoded images in one call. Safe to cancel.

        Args:
            images: JPEG or PNG.
            version: Version that answers; None for the newest.
            timeout_s: Deadline in seconds, if earlier than that of all calls.

        Raises:
            ModelMissingError: The server is down or lacks the version: retry, or ask another version.
            ModelUnavailableError: Retry later.
            ModelOutputError: The output is not a table of probabilities.
            BadInputError: At least one image is refused.
        """
        request = _predict_pb2.PredictRequest()
        request.model_spec.name = self.model
        request.model_spec.signature_name = "serving_default"
        if version is not None:
            request.model_spec.version.value = version
        tensor = request.inputs["image"]
        tensor.dtype = _DT_STRING
        tensor.tensor_shape.dim.add().size = len(images)
        tensor.string_val.extend(images)
        try:
            response = await self._predict(request, timeout=min(timeout_s or math.inf, self._timeout_s))
        except grpc.aio.AioRpcError as error:
            raise self._mapped(error) from None
        return self._predictions(response, len(images))

    async def smoke_test(self, version: int | None = None) -> BatchOutput:
        """Classify an image that every image model accepts. Safe to cancel.

        Raises:
            ModelUnavailableError: Retry later.
            ModelOutputError: The model is at fault: it refuses the image, or its output has the wrong form.
        """
        try:
            return await self.predict([_GREY], version)
        except BadInputError as error:
            raise ModelOutputError(f"model {self.model} refuses a known good image: {error}") from None

    async def model_status(self, version: int | None = None) -> ServedModel:
        """Return the status of a version, or of the newest one that is served. Safe to cancel.

        An unreachable server does not raise: it gives a `ServedModel` in state `absent` with the reason.
        """
        request = _status_pb2.GetModelStatusRequest()
        request.model_spec.name = self.model
        if version is not None:
            request.model_spec.version.value = version
        try:
            response = await self._status(request, timeout=self._timeout_s)
        except grpc.aio.AioRpcError as error:
            return ServedModel(
                name=self.model,
                version=version,
                state="absent",
                reason=(error.details() or error.code().name)[:MAX_TEXT_CHARS],
            )
        return to_served_model(self.model, response.model_version_status)

    async def reload_config(
        self, folder: Path, versions: Sequence[int] = (), labels: Mapping[str, int] | None = None
    ) -> None:
        """Replace the server's list of models by this one (HandleReloadConfigRequest). Safe to cancel.

        The server loads and unloads versions accordingly. A version that it serves already stays loaded, also
        if it came from another folder.

        Args:
            folder: Has a directory for each version; a path that the server sees too.
            versions: Versions to serve side by side; empty for the newest one in the folder.
            labels: Names of versions; the server refuses labels of versions that are not available.

        Raises:
            ModelUnavailableError: The server is down or refuses.
        """
        request = _management_pb2.ReloadConfigRequest()
        model = request.config.model_config_list.config.add(
            name=self.model, base_path=str(folder), model_platform="tensorflow"
        )
        model.model_version_policy.specific.versions.extend(versions)
        if not versions:
            model.model_version_policy.latest.num_versions = 1
        model.version_labels.update(labels or {})
        try:
            response = await self._reload(request, timeout=self._timeout_s)
        except grpc.aio.AioRpcError as error:
            problem = f"{error.code().name}: {error.details()}"
        else:
            if response.status.error_code == 0:
                return
            problem = response.status.error_message
        wanted = f"versions {list(versions)}" if versions else "the newest version"
        raise ModelUnavailableError(
            f"the model server at {self.address} does not serve {wanted} of model {self.model}: {problem}"
        )

    def _predictions(self, response: Any, count: int) -> BatchOutput:
        try:
            probabilities = _rows(response.outputs["probabilities"], count)
            embeddings, novelties = [b""] * count, list[float | None]([None] * count)
            if "embedding" in response.outputs:
                embeddings = [row.tobytes() for row in _rows(response.outputs["embedding"], count)]
            if "novelty" in response.outputs:
                novelties = list(_values(response.outputs["novelty"], [count]))
        except ValueError as error:
            raise ModelOutputError(
                f"output of model {self.model}",
                expected="`probabilities` [N, K], and `embedding` [N, D] and `novelty` [N] if present",
                got=error,
            ) from None
        return BatchOutput(response.model_spec.version.value, probabilities, embeddings, novelties)

    def _mapped(self, error: grpc.aio.AioRpcError) -> PermanentError | TransientError:
        """Map a gRPC status: INVALID_ARGUMENT is the input's fault, everything else may pass."""
        status = f"{error.code().name}: {error.details()}"
        # UNKNOWN, INTERNAL and the like say nothing about the photo: it is retried, never rejected.
        if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
            return BadInputError(f"model {self.model} refuses an image: {status}")
        kind = ModelMissingError if error.code() in _MISSING else ModelUnavailableError
        return kind(f"no answer from model {self.model} at {self.address}: {status}")


def _rows(tensor: Any, count: int) -> "list[array[float]]":
    """Return the rows of a float32 matrix.

    Raises:
        ValueError: The tensor is not a float32 matrix of this number of rows; the text names type and shape.
    """
    width = tensor.tensor_shape.dim[1].size if len(tensor.tensor_shape.dim) == _MATRIX else 0
    values = _values(tensor, [count, width])
    return [values[row * width : (row + 1) * width] for row in range(count)]


def _values(tensor: Any, wanted: list[int]) -> "array[float]":
    """Return the values of a float32 tensor.

    Raises:
        ValueError: The tensor has another type, shape or length; the text names them.
    """
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.dtype != _DT_FLOAT or shape != wanted:
        raise ValueError(f"type {tensor.dtype} of shape {shape} for {wanted[0]} images")
    size = math.prod(shape)
    values = array("f", tensor.tensor_content or tensor.float_val)  # servers fill one or the other
    if len(values) < size:  # TensorProto omits trailing repetitions of the last value
        values.extend([values[-1] if values else 0.0] * (size - len(values)))
    return values


def to_served_model(model: str, statuses: Sequence[Any]) -> ServedModel:
    """Return the newest available version among the server's statuses, else the state of the newest one."""
    newest_first = sorted(statuses, key=lambda status: status.version, reverse=True)
    for status in newest_first:
        if status.state == _AVAILABLE:
            return ServedModel(name=model, version=status.version, state="available")
    if not newest_first:
        return ServedModel(name=model, state="absent", reason="the server has no version of the model")
    newest = newest_first[0]
    failed = newest.state == _END and newest.status.error_code != 0
    return ServedModel(
        name=model,
        version=newest.version or None,  # protobuf's 0 is "not set"
        state="failed" if failed else "loading",
        reason=newest.status.error_message[:MAX_TEXT_CHARS] or None,
    )
