"""Answer Classify and Regress requests, which carry tf.Example messages."""

from edge.modelserver.models.servable import Servable
from edge.modelserver.requests.predict import Runner, response_spec
from edge.modelserver.runtimes.base import SERVING_SIGNATURE, Signature
from edge.modelserver.status import Code, ServingError
from edge.modelserver.tensors import Array, to_array, type_name, type_number
from edge.serving import messages_pb2 as messages

_CLASSIFY = "tensorflow/serving/classify"
_REGRESS = "tensorflow/serving/regress"
_INPUTS = "inputs"
_CLASSES = "classes"
_SCORES = "scores"
_OUTPUTS = "outputs"
_FLOAT = 1
_STRING = 7
_MATRIX_RANK = 2


def classify(
    servable: Servable,
    request: messages.ClassificationRequest,
    runner: Runner,
    timeout_s: float | None,
) -> messages.ClassificationResponse:
    """Answer a ClassificationRequest; same arguments and errors as `predict.predict`."""
    name, signature = _signature(servable, request.model_spec, _CLASSIFY, "classification")
    _check_one_input(signature, "classification")
    if len(signature.outputs) not in (1, 2):
        raise _invalid(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    aliases = [alias for alias in (_CLASSES, _SCORES) if alias in signature.outputs]
    if not aliases:
        raise ServingError(
            Code.FAILED_PRECONDITION,
            'Expected classification signature outputs to contain at least one of "classes" or "scores".',
        )
    examples = _serialize(request.input)
    fetches = [signature.outputs[alias] for alias in aliases]
    arrays = dict(
        zip(aliases, runner(servable, _feeds(signature, examples), fetches, timeout_s), strict=True)
    )
    response = messages.ClassificationResponse(
        model_spec=response_spec(servable, request.model_spec.name, name)
    )
    _write_classes(response.result, arrays, len(examples))
    return response


def regress(
    servable: Servable, request: messages.RegressionRequest, runner: Runner, timeout_s: float | None
) -> messages.RegressionResponse:
    """Answer a RegressionRequest; same arguments and errors as `predict.predict`."""
    name, signature = _signature(servable, request.model_spec, _REGRESS, "regression")
    _check_one_input(signature, "regression")
    if len(signature.outputs) != 1:
        raise _invalid("Expected one output Tensor.")
    if _OUTPUTS not in signature.outputs:
        raise ServingError(Code.FAILED_PRECONDITION, "No regression outputs found in SignatureDef.")
    examples = _serialize(request.input)
    (array,) = runner(servable, _feeds(signature, examples), [signature.outputs[_OUTPUTS]], timeout_s)
    response = messages.RegressionResponse(model_spec=response_spec(servable, request.model_spec.name, name))
    for value in _regressions(array, len(examples)):
        response.result.regressions.add(value=value)
    return response


def _signature(servable: Servable, spec: messages.ModelSpec, method: str, kind: str) -> tuple[str, Signature]:
    name = spec.signature_name or SERVING_SIGNATURE
    signature = servable.signatures.get(name)
    if signature is None:
        # Predict answers FAILED_PRECONDITION here; TensorFlow Serving differs in the same way.
        raise _invalid(f"No signature was found with the name: {name}")
    if signature.method != method:
        raise _invalid(f"Expected {kind} signature method_name to be {method}. Was: {signature.method}")
    return name, signature


def _check_one_input(signature: Signature, kind: str) -> None:
    if len(signature.inputs) != 1:
        raise _invalid("Expected one input Tensor.")
    if _INPUTS not in signature.inputs:
        raise ServingError(Code.FAILED_PRECONDITION, f"No {kind} inputs found in SignatureDef.")


def _serialize(source: messages.Input) -> list[bytes]:
    """Serialize the examples, each with the shared context if there is one."""
    context, examples = b"", list(source.example_list.examples)
    if source.WhichOneof("kind") == "example_list_with_context":
        context = source.example_list_with_context.context
        examples = list(source.example_list_with_context.examples)
    if not examples:
        raise _invalid("Input is empty.")
    # Parsing concatenated messages merges them, and the later one wins: the example overrides the context.
    return [context + example for example in examples]


def _feeds(signature: Signature, examples: list[bytes]) -> dict[str, Array]:
    proto = messages.TensorProto(dtype=_STRING, string_val=examples)
    proto.tensor_shape.dim.add(size=len(examples))
    return {signature.inputs[_INPUTS].tensor: to_array(proto)}


def _write_classes(result: messages.ClassificationResult, arrays: dict[str, Array], count: int) -> None:
    for alias, expected in ((_CLASSES, _STRING), (_SCORES, _FLOAT)):
        if alias in arrays:
            _check_matrix(alias, arrays[alias], expected, count)
    widths = {array.shape[1] for array in arrays.values()}
    if len(widths) > 1:
        raise _invalid("Tensors class and score should match in dim_size(1).")
    labels = arrays[_CLASSES].tolist() if _CLASSES in arrays else None
    scores = arrays[_SCORES].tolist() if _SCORES in arrays else None
    for row in range(count):
        # One of the two may be missing: then labels are empty, or scores are 0.
        classes = result.classifications.add().classes
        for column in range(min(widths)):
            classes.add(
                label=labels[row][column] if labels else "", score=scores[row][column] if scores else 0.0
            )


def _check_matrix(alias: str, array: Array, expected: int, count: int) -> None:
    if array.ndim != _MATRIX_RANK:
        raise _invalid(f"Expected Tensor shape: [batch_size num_classes] but got {_shape(array)}")
    if type_number(array) != expected:
        raise _invalid(
            f"Expected {alias} Tensor of {_enum_name(expected)}. Got: {_enum_name(type_number(array))}"
        )
    if array.shape[0] != count:
        raise _invalid(f"Expected {alias} output batch size of {count}. Got: {array.shape[0]}")


def _regressions(array: Array, count: int) -> list[float]:
    if array.ndim != 1 and not (array.ndim == _MATRIX_RANK and array.shape[1] == 1):
        raise _invalid(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
            f"{_shape(array)}"
        )
    if array.shape[0] != count:
        raise _invalid(f"Input batch size did not match output batch size: {count} vs. {array.shape[0]}")
    if type_number(array) != _FLOAT:
        raise _invalid(f"Expected output Tensor of DT_FLOAT.  Got: {_enum_name(type_number(array))}")
    values: list[float] = array.reshape(-1).tolist()
    return values


def _shape(array: Array) -> str:
    return f"[{','.join(map(str, array.shape))}]"


def _enum_name(number: int) -> str:
    return f"DT_{type_name(number).upper()}"


def _invalid(message: str) -> ServingError:
    return ServingError(Code.INVALID_ARGUMENT, message)
