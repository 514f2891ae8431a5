"""Client of TensorFlow Serving's gRPC API; the only importer of grpc in the edge handler.

The messages are those of `messages.proto`: the package `tensorflow-serving-api` would install TensorFlow.
"""

import asyncio
import math
import re
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc.aio

from edge.serving import messages_pb2 as messages
from edge.serving.call_form import SIGNATURE, CallForm, softmax
from edge.serving.tensor_rows import read_values, rows
from edge.serving.unfinished import UnfinishedCalls
from schemas.errors import PermanentError, TransientError
from schemas.field_types import MAX_TEXT_CHARS
from schemas.litert import VARIANT_METADATA
from schemas.messages import ServedModel

_DT_STRING = 7
_AVAILABLE = 30  # GetModelStatus: ModelVersionStatus.State
_END = 50
UNFINISHED_S = 300.0
"""How long a call may last, in seconds; then it is cancelled and no longer counted."""
_VARIANT = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
# These mean that the server cannot take any call, of any content.
_NOT_BY_INPUT = (
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
)
_MISSING = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),  # a batch may exceed gRPC's default of 4 MB
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 200),  # gRPC's own back-off grows to two minutes
    ("grpc.max_reconnect_backoff_ms", 2000),
)
# A grey PNG of 16 x 16 pixels.
KNOWN_GOOD = bytes.fromhex(
    "89504e470d0a1a0a0000000d494844520000001000000010080200000090916836000000194944415478da63ac"
    "68ea6120053031900846358c6a183a1a00db8c01a69620e8710000000049454e44ae426082"
)


class ModelUnavailableError(TransientError):
    """The model server cannot answer now: it is down, overloaded, too slow, or lacks this model.

    Args:
        sentence: What happened.
        by_input: Whether an image of the call may be the cause, as it may stop or occupy the server.
    """

    def __init__(self, sentence: str, *, by_input: bool = False) -> None:
        super().__init__(sentence)
        self.by_input = by_input


class ModelMissingError(ModelUnavailableError):
    """The server is down, or does not serve this version now; the version is not at fault."""


class UnfinishedError(ModelUnavailableError):
    """The deadline of a call passed, and the call is still running: decoding cannot be interrupted.

    Args:
        sentence: What happened.
        call: The call; done when the server has ended the work, or `UNFINISHED_S` after its start.
    """

    def __init__(self, sentence: str, call: "asyncio.Task[BatchOutput]") -> None:
        super().__init__(sentence, by_input=True)
        self.call = call


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
        variant: LiteRT variant that answered; empty if a graph did, or the server does not report it.
    """

    version: int
    probabilities: "list[array[float]]"  # quoted: `array` is not generic at run time
    embeddings: list[bytes]
    novelties: Sequence[float | None]
    variant: str = ""


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
        self.timeout_s = timeout_s
        self._forms: dict[int | None, CallForm] = {}
        self.unfinished = UnfinishedCalls()
        """Calls that are still running after their deadline."""

    async def __aenter__(self) -> Self:
        """Create the channel; it connects with the first call."""
        self._channel = grpc.aio.insecure_channel(self.address, options=_CHANNEL_OPTIONS)
        self._predict = self._channel.unary_unary(
            "/tensorflow.serving.PredictionService/Predict",
            messages.PredictRequest.SerializeToString,
            messages.PredictResponse.FromString,
        )
        self._metadata = self._channel.unary_unary(
            "/tensorflow.serving.PredictionService/GetModelMetadata",
            messages.GetModelMetadataRequest.SerializeToString,
            messages.GetModelMetadataResponse.FromString,
        )
        self._status = self._channel.unary_unary(
            "/tensorflow.serving.ModelService/GetModelStatus",
            messages.GetModelStatusRequest.SerializeToString,
            messages.GetModelStatusResponse.FromString,
        )
        self._reload = self._channel.unary_unary(
            "/tensorflow.serving.ModelService/HandleReloadConfigRequest",
            messages.ReloadConfigRequest.SerializeToString,
            messages.ReloadConfigResponse.FromString,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the channel; calls under way are cancelled."""
        await self.unfinished.cancel()
        await self._channel.close()

    def set_form(self, version: int, form: CallForm) -> None:
        """Set how the version in service is called; all others are called as our own models."""
        self._forms = {version: form, None: form}

    def _form(self, version: int | None) -> CallForm:
        return self._forms.get(version, CallForm())

    async def predict(
        self, images: Sequence[bytes], version: int | None = None, *, timeout_s: float | None = None
    ) -> BatchOutput:
        """Classify encoded images in one call. Safe to cancel.

        A call with one image that is not finished at its deadline continues and is counted in `unfinished`,
        so that the caller knows when the image no longer occupies the server. Other calls end at the
        deadline.

        Args:
            images: JPEG or PNG.
            version: Version that answers; None for the newest.
            timeout_s: Deadline in seconds, if earlier than that of all calls.

        Raises:
            ModelMissingError: The server is down or lacks the version: retry, or ask another version.
            UnfinishedError: The deadline passed, and the call is still running.
            ModelUnavailableError: Retry later.
            ModelOutputError: The output is not a table of probabilities.
            BadInputError: At least one image is refused.
        """
        deadline_s = min(timeout_s or math.inf, self.timeout_s)
        form = self._form(version)  # one for request and answer: it may be set again in between
        request = self._request(images, version, form)
        if len(images) > 1:  # ended by the server too, which then decodes none of the images that are left
            return await self._answer(self._predict(request, timeout=deadline_s), len(images), form)
        call = self._predict(request, timeout=UNFINISHED_S)
        if await _ends_within(call, deadline_s):
            return await self._answer(call, 1, form)
        unfinished = asyncio.create_task(self._answer(call, 1, form), name="edge.unfinished-call")
        self.unfinished.add(unfinished)
        reason = f"DEADLINE_EXCEEDED: not within {deadline_s:.3g} s"
        raise UnfinishedError(f"no answer from model {self.model} at {self.address}: {reason}", unfinished)

    def _request(
        self, images: Sequence[bytes], version: int | None, form: CallForm
    ) -> messages.PredictRequest:
        request = messages.PredictRequest()
        request.model_spec.name = self.model
        request.model_spec.signature_name = SIGNATURE
        if version is not None:
            request.model_spec.version.value = version
        tensor = request.inputs[form.image]
        tensor.dtype = _DT_STRING
        tensor.tensor_shape.dim.add().size = len(images)
        tensor.string_val.extend(images)
        return request

    async def _answer(self, call: Any, count: int, form: CallForm) -> BatchOutput:
        try:
            response = await call
        except grpc.aio.AioRpcError as error:
            raise self._mapped(error) from None
        return replace(
            self._predictions(response, count, form), variant=_variant(await call.trailing_metadata())
        )

    async def smoke_test(self, version: int | None = None, *, timeout_s: float | None = None) -> BatchOutput:
        """Classify an image that every image model accepts. Safe to cancel.

        Args:
            version: Version that answers; None for the newest.
            timeout_s: Deadline in seconds, if earlier than that of all calls.

        Raises:
            ModelUnavailableError: Retry later.
            ModelOutputError: The model is at fault: it refuses the image, or its output has the wrong form.
        """
        try:
            # With a deadline that ends the call: this image occupies no server.
            deadline_s = min(timeout_s or math.inf, self.timeout_s)
            form = self._form(version)
            call = self._predict(self._request([KNOWN_GOOD], version, form), timeout=deadline_s)
            return await self._answer(call, 1, form)
        except BadInputError as error:
            raise ModelOutputError(f"model {self.model} refuses a known good image: {error}") from None

    async def model_status(self, version: int | None = None) -> ServedModel:
        """Return the status of a version, or of the newest one that is served. Safe to cancel.

        An unreachable server does not raise: it gives a `ServedModel` in state `absent` with the reason.
        """
        request = messages.GetModelStatusRequest()
        request.model_spec.name = self.model
        if version is not None:
            request.model_spec.version.value = version
        try:
            response = await self._status(request, timeout=self.timeout_s)
        except grpc.aio.AioRpcError as error:
            return ServedModel(
                name=self.model,
                version=version,
                state="absent",
                reason=(error.details() or error.code().name)[:MAX_TEXT_CHARS],
            )
        return to_served_model(self.model, response.model_version_status)

    async def signatures(self, version: int) -> Mapping[str, messages.SignatureDef] | None:
        """Return the signatures of a version by name (GetModelMetadata). Safe to cancel.

        Returns:
            None if the server does not know the call.

        Raises:
            ModelUnavailableError: The server is down or lacks the version.
        """
        request = messages.GetModelMetadataRequest()
        request.model_spec.name, request.model_spec.version.value = self.model, version
        request.metadata_field.append("signature_def")
        try:
            response = await self._metadata(request, timeout=self.timeout_s)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return None
            raise ModelUnavailableError(
                f"no metadata of model {self.model} at {self.address}: {error.code().name}: {error.details()}"
            ) from None
        found = messages.SignatureDefMap.FromString(response.metadata["signature_def"].value)
        return dict(found.signature_def)

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
        request = messages.ReloadConfigRequest()
        model = request.config.model_config_list.config.add(
            name=self.model, base_path=str(folder), model_platform="tensorflow"
        )
        model.model_version_policy.specific.versions.extend(versions)
        if not versions:
            model.model_version_policy.latest.num_versions = 1
        model.version_labels.update(labels or {})
        try:
            response = await self._reload(request, timeout=self.timeout_s)
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

    def _predictions(self, response: messages.PredictResponse, count: int, form: CallForm) -> BatchOutput:
        try:
            probabilities = rows(response.outputs[form.scores], count)
            if form.logits:
                probabilities = [softmax(row) for row in probabilities]
            embeddings, novelties = [b""] * count, list[float | None]([None] * count)
            if "embedding" in response.outputs:
                embeddings = [row.tobytes() for row in rows(response.outputs["embedding"], count)]
            if "novelty" in response.outputs:
                novelties = list(read_values(response.outputs["novelty"], [count]))
        except ValueError as error:
            raise ModelOutputError(
                f"output of model {self.model}",
                expected=f"`{form.scores}` [N, K], and `embedding` [N, D] and `novelty` [N] if present",
                got=error,
            ) from None
        return BatchOutput(response.model_spec.version.value, probabilities, embeddings, novelties)

    def _mapped(self, error: grpc.aio.AioRpcError) -> PermanentError | TransientError:
        """Map a gRPC status: INVALID_ARGUMENT is the input's fault, everything else may pass."""
        status = f"{error.code().name}: {error.details()}"
        # UNKNOWN, INTERNAL and the like may have causes other than the photo: it is retried, never rejected.
        if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
            return BadInputError(f"model {self.model} refuses an image: {status}")
        kind = ModelMissingError if error.code() in _MISSING else ModelUnavailableError
        by_input = error.code() not in _NOT_BY_INPUT
        return kind(f"no answer from model {self.model} at {self.address}: {status}", by_input=by_input)


def _variant(metadata: Any) -> str:
    """Return the variant in the trailing metadata of an answer; empty unless the contract allows its name."""
    name = metadata.get(VARIANT_METADATA)
    return name if isinstance(name, str) and _VARIANT.fullmatch(name) else ""


async def _ends_within(call: Any, timeout_s: float) -> bool:
    """Wait for a gRPC call without ending it at the time-out; return whether it ended."""
    # Not by a task: that would cost more than the wait, for each photo.
    woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake(_: object) -> None:
        if not woken.done():
            woken.set_result(None)

    call.add_done_callback(wake)
    timer = asyncio.get_running_loop().call_later(timeout_s, wake, None)
    try:
        await woken
        return bool(call.done())
    except asyncio.CancelledError:
        call.cancel()
        raise
    finally:
        timer.cancel()


def to_served_model(model: str, statuses: Sequence[messages.ModelVersionStatus]) -> ServedModel:
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
