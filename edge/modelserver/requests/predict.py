"""Answer Predict requests: check against the signature, run, encode the outputs."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from edge.modelserver.models.servable import Servable
from edge.modelserver.runtimes.base import SERVING_SIGNATURE, Signature
from edge.modelserver.status import Code, ServingError
from edge.modelserver.tensors import Array, TensorError, to_array, type_name, type_number, write
from edge.serving import messages_pb2 as messages

Runner = Callable[[Servable, Mapping[str, Array], Sequence[str], float | None], list[Array]]
"""Runs a servable on feeds: `Servable.run`, or `BatchScheduler.run`, which merges calls."""


def predict(
    servable: Servable, request: messages.PredictRequest, runner: Runner, timeout_s: float | None
) -> messages.PredictResponse:
    """Answer a PredictRequest.

    Args:
        servable: the version that the request's model_spec selects.
        request: the request.
        runner: runs the servable.
        timeout_s: seconds left until the client's deadline; None for no deadline.

    Raises:
        ServingError: with the status code and message for the client.
    """
    name = request.model_spec.signature_name or SERVING_SIGNATURE
    signature = servable.signatures.get(name)
    if signature is None:
        raise ServingError(Code.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
    feeds = _feeds(signature, request.inputs)
    aliases = _aliases(signature, request.output_filter)
    fetches = list(dict.fromkeys(signature.outputs[alias] for alias in aliases))  # two aliases may share one
    arrays = dict(zip(fetches, runner(servable, feeds, fetches, timeout_s), strict=True))
    response = messages.PredictResponse(model_spec=response_spec(servable, request.model_spec.name, name))
    outputs = response.outputs
    for alias in aliases:
        write(outputs[alias], arrays[signature.outputs[alias]])
    return response


def response_spec(servable: Servable, name: str, signature_name: str) -> messages.ModelSpec:
    """Return the model_spec of a response: the requested names and the version that answered."""
    spec = messages.ModelSpec(name=name, signature_name=signature_name)
    spec.version.value = servable.version
    return spec


def _feeds(signature: Signature, inputs: Mapping[str, messages.TensorProto]) -> dict[str, Array]:
    count, expected = len(inputs), len(signature.inputs)
    if count > expected or (count < expected and not signature.defaults):
        raise ServingError(Code.INVALID_ARGUMENT, _count_message(set(inputs), set(signature.inputs)))
    # The order of the checks is TensorFlow Serving's: it decides which error a request with several gets.
    feeds, used = {}, set()
    for alias, feed in signature.inputs.items():
        if alias in inputs:
            array = _array(alias, inputs[alias])
            used.add(alias)
        elif alias in signature.defaults:
            array = signature.defaults[alias]
        else:
            raise ServingError(
                Code.INVALID_ARGUMENT, _alias_message(alias, feed.tensor, inputs, signature.defaults)
            )
        _check_type(feed.dtype, array)
        feeds[feed.tensor] = array
    if count != len(used):
        raise ServingError(
            Code.INVALID_ARGUMENT,
            f"Inputs contains invalid name. Used request inputs: {_joined(used)}, "
            f"request input: {_joined(inputs)}",
        )
    return feeds


def _array(alias: str, proto: messages.TensorProto) -> Array:
    try:
        return to_array(proto)
    except TensorError as error:  # its reason stays here: TensorFlow Serving names the input and no more
        raise ServingError(Code.INVALID_ARGUMENT, f"tensor parsing error: {alias}") from error


def _check_type(expected: int, array: Array) -> None:
    actual = type_number(array)
    if actual != expected:
        raise ServingError(
            Code.INVALID_ARGUMENT,
            f"Type mismatch: actual {type_name(actual)} vs. expect {type_name(expected)}",
        )


def _aliases(signature: Signature, output_filter: Sequence[str]) -> list[str]:
    """Return the outputs to compute: those in the filter, or all if it is empty."""
    seen: set[str] = set()
    for alias in output_filter:
        if alias not in signature.outputs:
            raise ServingError(
                Code.INVALID_ARGUMENT,
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set "
                f"{{{_joined(signature.outputs)}}}.",
            )
        if alias in seen:
            raise ServingError(Code.INVALID_ARGUMENT, f"duplicate output tensor alias: {alias}")
        seen.add(alias)
    return list(output_filter or signature.outputs)


def _count_message(actual: set[str], expected: set[str]) -> str:
    return (
        f"input size does not match signature: {len(actual)}!={len(expected)} "
        f"len({{{_joined(actual)}}}) != len({{{_joined(expected)}}}). "
        f"Sent extra: {{{_joined(actual - expected)}}}. "
        f"Missing but required: {{{_joined(expected - actual)}}}."
    )


def _alias_message(alias: str, tensor: str, inputs: Iterable[str], defaults: Iterable[str]) -> str:
    return (
        f"Signature input alias: {alias}(feed name: {tensor}) not found in request and no default value "
        f"provided. Inputs expected to be in the request {{{_joined(inputs)}}}, or default input alias set: "
        f"{_joined(defaults)}"
    )


def _joined(aliases: Iterable[str]) -> str:
    return ",".join(sorted(aliases))
