"""Load an `.onnx` file as a graph of TensorFlow, and compare it with ONNX's reference implementation."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from cloud.modeling.adopted.class_scores import choose_output
from cloud.modeling.adopted.network import Reference, only_input, read_input
from cloud.modeling.adopted.onnx.onnx_operators import OPERATORS
from cloud.modeling.adopted.onnx.onnx_values import Value, plain
from cloud.modeling.adopted.parts import ForeignModel, ModelSource, cannot_load, wrapped
from cloud.modeling.adopted.preprocessing import AdoptionError, first_line
from schemas.distribution import install_command

_EXACT, _ROUNDED = 1e-3, 0.1
_OLDEST_OPSET = 13
"""Of Softmax along one axis, and of axes as inputs."""
_WEIGHT_SIZE = 16
_ROWS, _BATCH_OF_IMAGES = 2, 4


def load_onnx(source: ModelSource) -> ForeignModel:
    """Load a classifier; where it ends in a softmax, what comes before is used.

    Raises:
        AdoptionError: the package `onnx` is not installed or cannot load the file, it has several inputs, an
            operator or an output that cannot be used, or TensorFlow's answers differ.
    """
    try:
        import onnx  # noqa: PLC0415 - an extra
        from onnx.reference import ReferenceEvaluator  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise AdoptionError(
            f"cannot read {source.path}: the package {error.name!r} is not installed",
            hint=f"install it with: {install_command('onnx')}",
        ) from None
    try:
        model = onnx.load(source.path)
        _check_operators(model)  # before the library, which explains unknown ones less well
        onnx.checker.check_model(model)
        evaluator = ReferenceEvaluator(model)
    except AdoptionError:
        raise
    except Exception as error:  # noqa: BLE001 - of protobuf's, its checker's and its own kinds
        raise cannot_load(source.path, error) from None
    graph = OnnxGraph(model, source.path)
    name, (shape, kind) = only_input(source.path, graph.inputs)
    output = choose_output(graph.widths, source.classes, source.output, graph.others)
    scores = graph.before_softmax(output)
    form = read_input(name, shape, tf.as_dtype(kind))
    reference = Reference(
        lambda photos: np.concatenate(
            [evaluator.run([output], {name: row[np.newaxis]})[0] for row in photos]
        ),
        "ONNX",
        _ROUNDED if graph.quantised else _EXACT,
        "probabilities" if scores != output else None,
    )
    chosen = replace(source, scores="logits" if scores != output else source.scores)
    called = tf.function(lambda images: graph.run(images, scores), autograph=False)
    if form.batched or form.squeezed:
        return wrapped(chosen, called, form, graph.weights, "ONNX model", reference=reference)
    try:  # exported for one photo: most such graphs take several
        several = replace(form, batched=True)
        return wrapped(chosen, called, several, graph.weights, "ONNX model", reference=reference)
    except AdoptionError:
        return wrapped(chosen, called, form, graph.weights, "ONNX model", reference=reference)


class OnnxGraph:
    """The graph of an ONNX model.

    Args:
        model: a `ModelProto` that is valid.
        path: of the file, for messages.

    Attributes:
        inputs: shape, with None for open dimensions, and type of NumPy by name.
        widths: numbers per photo of outputs that are rows, by name; None if not known.
        others: the other outputs, with their shapes.
        weights: variables of TensorFlow.
        quantised: whether it rounds numbers to integers.

    Raises:
        AdoptionError: its opset is too old, or it has an operator that is not known here.
    """

    def __init__(self, model: Any, path: Path) -> None:
        from onnx import helper, numpy_helper  # noqa: PLC0415 - an extra

        graph = model.graph
        opset = next((one.version for one in model.opset_import if one.domain in {"", "ai.onnx"}), 0)
        if opset < _OLDEST_OPSET:
            raise AdoptionError(
                f"{path} is of opset {opset}; {_OLDEST_OPSET} or later is needed",
                hint="export it again, or convert it with onnx.version_converter",
            )
        constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
        self._nodes: list[tuple[str, list[str], list[str], Mapping[str, Any]]] = []
        for node in graph.node:
            attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
            if node.op_type == "Constant" and "value" in attributes:
                constants[node.output[0]] = numpy_helper.to_array(attributes["value"])
                continue
            name = _operator(node)
            if name == "Cast":
                attributes["to"] = helper.tensor_dtype_to_np_dtype(attributes["to"])
            self._nodes.append((name, list(node.input), list(node.output), attributes))
        self.inputs = {
            one.name: (
                _shape(one),
                helper.tensor_dtype_to_np_dtype(one.type.tensor_type.elem_type),
            )
            for one in graph.input
            if one.name not in constants
        }
        self.widths = {one.name: _shape(one)[-1] for one in graph.output if len(_shape(one)) == _ROWS}
        if any(len(shape) == _BATCH_OF_IMAGES for shape, _ in self.inputs.values()):
            self.widths |= {one.name: 1 for one in graph.output if len(_shape(one)) == 1}
        self.others = [
            f"{one.name} {_shape(one)}".replace("None", "?")
            for one in graph.output
            if one.name not in self.widths
        ]
        self.quantised = any(name == "QuantizeLinear" for name, *_ in self._nodes)
        self.weights: list[tf.Variable] = []
        self._constants = {name: Value(self._constant(values)) for name, values in constants.items()}

    def _constant(self, values: NDArray[Any]) -> Any:
        if values.dtype.kind != "f" or values.size <= _WEIGHT_SIZE:
            return values
        weight = tf.Variable(values, trainable=False)
        self.weights.append(weight)
        return weight

    def run(self, photos: tf.Tensor, output: str) -> tf.Tensor:
        """Compute an output for the only input.

        Raises:
            ValueError: an operator has a form that is not known here.
        """
        [entry] = self.inputs
        values: dict[str, Value | None] = {**self._constants, entry: Value(photos), "": None}
        for name, inputs, outputs, attributes in self._nodes:
            try:
                result = OPERATORS[name]([values[one] for one in inputs], attributes)
            except NotImplementedError as error:
                raise ValueError(f"no form in TensorFlow's graph is known for {error}") from None
            except (TypeError, KeyError, IndexError, AttributeError) as error:
                raise ValueError(f"ONNX's {name} cannot be used: {first_line(error)}") from None
            results = result if isinstance(result, list) else [result]
            values.update(zip(outputs, results, strict=False))  # Dropout's mask is left out
        found = values[output]
        assert found is not None, "an output of a valid graph"
        return plain(found)

    def before_softmax(self, output: str) -> str:
        """Return the tensor whose softmax an output is; the output itself if it is not a softmax."""
        for name, inputs, outputs, attributes in self._nodes:
            if outputs[0] == output and name == "Softmax" and attributes.get("axis", -1) in {-1, 1}:
                return inputs[0]
        return output


def _operator(node: Any) -> str:
    return node.op_type if node.domain in {"", "ai.onnx"} else f"{node.domain}.{node.op_type}"


def _is_constant(node: Any) -> bool:
    return node.op_type == "Constant" and any(one.name == "value" for one in node.attribute)


def _check_operators(model: Any) -> None:
    """Refuse operators without a translation.

    Raises:
        AdoptionError: the opset is recent enough, and an operator is not known here.
    """
    opset = next((one.version for one in model.opset_import if one.domain in {"", "ai.onnx"}), 0)
    nodes = (node for node in model.graph.node if not _is_constant(node))
    unknown = {_operator(node) for node in nodes} - set(OPERATORS)
    if unknown and opset >= _OLDEST_OPSET:
        raise AdoptionError(
            f"no form in TensorFlow's graph is known for ONNX's {', '.join(sorted(unknown))}",
            hint="convert the model to a SavedModel where it was made, and adopt that",
        )


def _shape(value: Any) -> list[int | None]:
    return [one.dim_value if one.HasField("dim_value") else None for one in value.type.tensor_type.shape.dim]
