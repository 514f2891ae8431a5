"""Read the graph of a `.tflite` file, and compute it in TensorFlow.

The graph is one for real numbers: quantised weights are multiplied out, and quantised activations are rounded
to the scale that the file has for them.
"""

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from cloud.modeling.adopted.litert.litert_operators import OPERATORS, activated
from cloud.modeling.adopted.preprocessing import AdoptionError

TYPES = {number: name.lower() for name, number in vars(schema.TensorType).items() if not name.startswith("_")}
_NAMES = {number: name for name, number in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
_SIGNATURE = "serving_default"
_ROUNDED = {"uint8": (0, 255), "int8": (-128, 127), "int16": (-32768, 32767)}
_VARIABLE_SIZE = 16
"""Constants with more numbers than this are weights; smaller ones may be axes or shapes."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Quantisation of a tensor: `real = scale * (integer - zero)`.

    Attributes:
        scale: one number, or one per index of `axis`.
        zero: the same.
        axis: dimension of scales per channel.
    """

    scale: NDArray[np.float32]
    zero: NDArray[np.int64]
    axis: int

    def real(self, integers: NDArray[Any]) -> NDArray[np.float32]:
        """Return the real numbers that integers stand for."""
        shape = [1] * integers.ndim
        if self.scale.size > 1:
            shape[self.axis] = -1
        differences = integers.astype(np.float64) - self.zero.reshape(shape)
        return (differences * self.scale.reshape(shape)).astype(np.float32)


class LiteRTGraph:
    """One signature of a `.tflite` file; its first subgraph if it has no signatures.

    Args:
        content: of the file, which LiteRT has loaded before.

    Attributes:
        inputs: tensors by name.
        outputs: tensors by name.
        weights: variables of TensorFlow.
        quantised: whether an activation or a weight is quantised.

    Raises:
        AdoptionError: it has several signatures, or an operator that is not known here.
    """

    def __init__(self, content: bytes) -> None:
        try:
            model = schema.ModelT.InitFromPackedBuf(content, 0)
        except (struct.error, IndexError, TypeError, ValueError, AttributeError) as error:
            raise AdoptionError(f"the file has no graph of LiteRT: {error}") from None
        named, index = _signature(model)
        self._graph = model.subgraphs[index]
        self._codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
        tensors = self._graph.tensors
        self.inputs: dict[str, int]
        self.outputs: dict[str, int]
        self.inputs, self.outputs = named or (
            {_text(tensors[position].name): position for position in self._graph.inputs},
            {_text(tensors[position].name): position for position in self._graph.outputs},
        )
        unknown = {
            self._name(operator)
            for operator in self._graph.operators
            if self._name(operator) not in OPERATORS
        }
        if unknown:
            raise AdoptionError(
                f"no form in TensorFlow's graph is known for LiteRT's {', '.join(sorted(unknown))}",
                hint="adopt the model that the file was converted from",
            )
        self.weights: list[tf.Variable] = []
        self._constants: dict[int, Any] = {}
        for position, tensor in enumerate(tensors):
            data = model.buffers[tensor.buffer].data
            if data is not None and len(data):
                self._constants[position] = self._constant(position, np.asarray(data, np.uint8).tobytes())
        self.quantised = any(self.scale(position) is not None for position in range(len(tensors)))

    def shape(self, position: int) -> list[int | None]:
        """Return the shape of a tensor, with None for what the file leaves open."""
        tensor = self._graph.tensors[position]
        signature = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
        return [None if size < 0 else int(size) for size in ([] if signature is None else signature)]

    def type(self, position: int) -> str:
        """Return the type of a tensor's numbers, as NumPy calls it."""
        return str(TYPES[self._graph.tensors[position].type])

    def scale(self, position: int) -> Scale | None:
        """Return the quantisation of a tensor, None if its numbers are real ones or counts."""
        found = self._graph.tensors[position].quantization
        if found is None or found.scale is None or not len(found.scale):
            return None
        zero = np.zeros(len(found.scale)) if found.zeroPoint is None else found.zeroPoint
        return Scale(
            np.asarray(found.scale, np.float32), np.asarray(zero, np.int64), found.quantizedDimension
        )

    def run(self, photos: tf.Tensor, output: int) -> tf.Tensor:
        """Compute an output of real numbers for the only input, real numbers `[N, H, W, C]`."""
        [entry] = self.inputs.values()
        values = {**self._constants, entry: self._rounded(photos, entry)}
        for operator in self._graph.operators:
            name = self._name(operator)
            inputs = [values[position] for position in operator.inputs if position >= 0]
            first = operator.outputs[0]
            shape = [int(size) for size in self._shape(first)]
            result = OPERATORS[name](inputs, operator.builtinOptions, shape)
            results = result if isinstance(result, list) else [activated(result, operator.builtinOptions)]
            for position, value in zip(operator.outputs, results, strict=True):
                values[position] = self._rounded(value, position)
        return values[output]

    def before_softmax(self, output: int) -> int:
        """Return the tensor whose softmax an output is; the output itself if it is not a softmax."""
        producers = {operator.outputs[0]: operator for operator in self._graph.operators}
        position = output
        while position in producers:
            operator = producers[position]
            name = self._name(operator)
            if name == "SOFTMAX" and operator.builtinOptions.beta == 1:
                return int(operator.inputs[0])
            if name not in {"QUANTIZE", "DEQUANTIZE"}:
                break
            position = operator.inputs[0]
        return output

    def _shape(self, position: int) -> Any:
        shape = self._graph.tensors[position].shape
        return [] if shape is None else shape

    def _name(self, operator: Any) -> str:
        return str(_NAMES.get(self._codes[operator.opcodeIndex], "CUSTOM"))

    def _constant(self, position: int, data: bytes) -> Any:
        values = np.frombuffer(data, self.type(position)).reshape(self._shape(position))
        scale = self.scale(position)
        if scale is not None:
            values = scale.real(values)
        if values.dtype.kind != "f":
            return values
        values = values.astype(np.float32)
        if values.size <= _VARIABLE_SIZE:
            return values
        weight = tf.Variable(values, trainable=False)
        self.weights.append(weight)
        return weight

    def _rounded(self, values: Any, position: int) -> Any:
        scale, limits = self.scale(position), _ROUNDED.get(self.type(position))
        if scale is None or limits is None or scale.scale.size != 1:
            return values
        step, zero = float(scale.scale[0]), int(scale.zero[0])
        low, high = ((limit - zero) * step for limit in limits)
        bits = 16 if self.type(position) == "int16" else 8
        return tf.quantization.fake_quant_with_min_max_args(values, low, high, num_bits=bits)


def _signature(model: Any) -> tuple[tuple[dict[str, int], dict[str, int]] | None, int]:
    """Return inputs and outputs of the signature by name, None without one, and its subgraph."""
    found = {_text(one.signatureKey): one for one in model.signatureDefs or []}
    if not found:
        return None, 0
    if _SIGNATURE not in found and len(found) > 1:
        raise AdoptionError(
            f"the file has the signatures {', '.join(sorted(found))}",
            hint=f"convert the model with one, or with one that is called {_SIGNATURE}",
        )
    one = found.get(_SIGNATURE) or next(iter(found.values()))
    named = tuple({_text(pair.name): pair.tensorIndex for pair in maps} for maps in (one.inputs, one.outputs))
    return (named[0], named[1]), one.subgraphIndex


def _text(name: bytes | None) -> str:
    return "" if name is None else name.decode("utf-8", "replace")
