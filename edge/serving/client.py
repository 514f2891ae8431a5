"""The client of TensorFlow Serving's gRPC API. The only importer of grpc in the handler.

It uses `tensorflow-serving-api`'s own messages without loading the TensorFlow runtime: those messages import
a few message files from the `tensorflow` package, whose `__init__` would load all of it. An empty package
object with the real `__path__` stands in while they are imported, which makes 39 MB of resident memory
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
from schemas.messages import ServedModel


def _import_stubs() -> tuple[Any, ...]:
    """Import the messages and stubs; a later real `import tensorflow` still works and shares them."""
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
_AVAILABLE = 30
_END = 50
_NOBODY_THERE = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
)
# A grey PNG of 16 x 16 pixels.
_GREY = bytes.fromhex(
    "89504e470d0a1a0a0000000d494844520000001000000010080200000090916836000000194944415478da63ac"
    "68ea6120053031900846358c6a183a1a00db8c01a69620e8710000000049454e44ae426082"
)


class ModelUnavailableError(TransientError):
    """The model server cannot answer now: away, overloaded, too slow, or without this model."""


class ModelMissingError(ModelUnavailableError):
    """The server is away, or does not serve this version now: no fault of the version."""


class ModelUnfitError(TransientError):
    """The model answers something that nobody can use; another version of it may."""


class BadInputError(PermanentError):
    """The model server refuses an input of this call (INVALID_ARGUMENT); alone it would say which."""


@dataclass(frozen=True, slots=True)
class BatchOutput:
    """The answer to a batch of N images.

    Args:
        version: The model version that answered.
        probabilities: N rows of K probabilities, one for each class.
        embeddings: N times the embedding as float32, little endian; empty if the model gives none.
        novelties: N times how unlike its training the image is; None if the model does not say.
    """

    version: int
    probabilities: "list[array[float]]"  # no generic at run time
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
        """Make the channel; it connects with the first call."""
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
        """Classify encoded images in one call, by the newest version or by this one. Safe to cancel.

        Args:
            images: JPEG or PNG.
            version: Which is to answer.
            timeout_s: A deadline earlier than usual.

        Raises:
            ModelMissingError: Try again later, or ask another version.
            ModelUnavailableError: Try again later.
            ModelUnfitError: The answer is no table of probabilities.
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
            raise self._meaning(error) from None
        return self._predictions(response, len(images))

    async def smoke_test(self, version: int | None = None) -> BatchOutput:
        """Classify a picture that every image model takes. Safe to cancel.

        Raises:
            ModelUnavailableError: Try again later.
            ModelUnfitError: The model is to blame: it refuses the picture, or its answer is no use.
        """
        try:
            return await self.predict([_GREY], version)
        except BadInputError as error:
            raise ModelUnfitError(
                f"model {self.model}", expected="to take a known good image", got=error.got
            ) from None

    async def served(self, version: int | None = None) -> ServedModel:
        """Return what the server says of a version, or of the newest one that it serves.

        An unreachable server is a `ServedModel` in state `absent` with the reason: a status question has an
        answer in any case.
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
                reason=(error.details() or error.code().name)[:1024],
            )
        return served_model(self.model, response.model_version_status)

    async def serve(
        self, folder: Path, versions: Sequence[int] = (), labels: Mapping[str, int] | None = None
    ) -> None:
        """Have the server serve these versions of a folder side by side, or only the newest of it.

        It loads and unloads by itself what that means. The list of its models is replaced: a model server
        belongs to one edge node, and to this model. What it serves already stays as it is, also from
        another folder. Safe to cancel.

        Args:
            folder: Holds a directory for each version, where the server sees it too.
            versions: None for the newest that is there.
            labels: Names for versions that it serves already.

        Raises:
            ModelUnavailableError: It does not do so now.
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
            got = f"{error.code().name}: {error.details()}"
        else:
            if response.status.error_code == 0:
                return
            got = response.status.error_message
        raise ModelUnavailableError(
            f"model {self.model} at {self.address}", expected=f"to serve {versions or 'the newest'}", got=got
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
            raise ModelUnfitError(
                f"model {self.model}",
                expected="`probabilities` of shape [N, K] and what goes with them",
                got=error,
            ) from None
        return BatchOutput(response.model_spec.version.value, probabilities, embeddings, novelties)

    def _meaning(self, error: grpc.aio.AioRpcError) -> PermanentError | TransientError:
        """Tell bad input from everything that may pass: a model can be placed, a server restarted."""
        subject = f"model {self.model} at {self.address}"
        got = f"{error.code().name}: {error.details()}"
        if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
            return BadInputError(subject, expected="a classifiable image", got=got)
        missing = error.code() in _NOBODY_THERE
        return (ModelMissingError if missing else ModelUnavailableError)(
            subject, expected="an answer", got=got
        )


def _rows(tensor: Any, count: int) -> "list[array[float]]":
    """Return the rows of a float32 matrix.

    Raises:
        ValueError: It is none, or has another number of rows; the text says what it is instead.
    """
    width = tensor.tensor_shape.dim[1].size if len(tensor.tensor_shape.dim) == _MATRIX else 0
    values = _values(tensor, [count, width])
    return [values[row * width : (row + 1) * width] for row in range(count)]


def _values(tensor: Any, wanted: list[int]) -> "array[float]":
    """Return the values of a float32 tensor; servers fill `float_val` or `tensor_content`.

    Raises:
        ValueError: It is none of that shape; the text says what it is instead.
    """
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.dtype != _DT_FLOAT or shape != wanted:
        raise ValueError(f"type {tensor.dtype} of shape {shape} for {wanted[0]} images")
    size = math.prod(shape)
    values = array("f", tensor.tensor_content or tensor.float_val)
    if len(values) < size:  # TensorProto: the last value stands for the rest
        values.extend([values[-1] if values else 0.0] * (size - len(values)))
    return values


def served_model(model: str, statuses: Sequence[Any]) -> ServedModel:
    """Return the newest available version among the server's, else what became of the newest one."""
    newest_first = sorted(statuses, key=lambda status: status.version, reverse=True)
    for status in newest_first:
        if status.state == _AVAILABLE:
            return ServedModel(name=model, version=status.version, state="available")
    if not newest_first:
        return ServedModel(name=model, state="absent", reason="the server knows no version")
    newest = newest_first[0]
    failed = newest.state == _END and newest.status.error_code != 0
    return ServedModel(
        name=model,
        version=newest.version or None,
        state="failed" if failed else "loading",
        reason=newest.status.error_message[:1024] or None,
    )
