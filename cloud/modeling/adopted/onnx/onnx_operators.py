"""The operators of ONNX that classifiers use, as functions of TensorFlow.

ONNX has the channels of photos first, TensorFlow's convolutions want them last. So a value knows its form,
and is transposed only where an operator needs the other one.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from cloud.modeling.adopted.onnx.onnx_images import average_pool, convolution, max_pool
from cloud.modeling.adopted.onnx.onnx_values import Attributes, Value, as_last, numbers, plain

_IMAGE_RANK = 4

Operator = Callable[[Sequence[Any], Attributes], Value | list[Value]]
"""From inputs, None for one that is left out, and attributes to the output, or to several."""


def _unary(function: Callable[..., Any], **defaults: float) -> Operator:
    """Return an operator on each number; attributes that it has are passed by name."""

    def run(inputs: Sequence[Any], attributes: Attributes) -> Value:
        given = {name: attributes.get(name, default) for name, default in defaults.items()}
        return Value(function(inputs[0].values, **given), inputs[0].last)

    return run


def _binary(function: Callable[[Any, Any], Any]) -> Operator:
    def run(inputs: Sequence[Any], _: Attributes) -> Value:
        last, values = _aligned(inputs)
        result = values[0]
        for other in values[1:]:
            result = function(result, other)
        return Value(result, last)

    return run


def _aligned(inputs: Sequence[Value]) -> tuple[bool, list[Any]]:
    """Return the values with the channels at one place, for broadcasting."""
    ranks = [len(value.values.shape) for value in inputs]
    last = any(value.last for value in inputs) and all(
        value.last or rank == _IMAGE_RANK or not tf.is_symbolic_tensor(value.values)
        for value, rank in zip(inputs, ranks, strict=True)
    )
    if not last:
        return False, [plain(value) for value in inputs]
    return True, [_broadcast_last(value) for value in inputs]


def _broadcast_last(value: Value) -> Any:
    rank = len(value.values.shape)
    if value.last or rank == 0:
        return value.values
    missing = _IMAGE_RANK - rank
    values = tf.reshape(value.values, [1] * missing + list(value.values.shape)) if missing else value.values
    return as_last(Value(values)).values


def _plain(function: Callable[..., Any]) -> Operator:
    """Return an operator on values with channels first: `function(attributes, *values)`."""

    def run(inputs: Sequence[Any], attributes: Attributes) -> Value | list[Value]:
        result = function(attributes, *(None if value is None else plain(value) for value in inputs))
        return [Value(one) for one in result] if isinstance(result, list) else Value(result)

    return run


def _axes(attributes: Attributes, given: Any) -> list[int] | None:
    """Return the axes, which are an attribute or an input, by the version of the operator."""
    found = attributes.get("axes") if given is None else numbers(given)
    return None if found is None else [int(axis) for axis in found]


def _reduction(function: Callable[..., Any]) -> Operator:
    def reduce(attributes: Attributes, values: Any, axes: Any = None) -> Any:
        return function(values, _axes(attributes, axes), keepdims=bool(attributes.get("keepdims", 1)))

    return _plain(reduce)


def _global_pool(function: Callable[..., Any]) -> Operator:
    def run(inputs: Sequence[Any], _: Attributes) -> Value:
        return Value(function(as_last(inputs[0]).values, [1, 2], keepdims=True), last=True)

    return run


def _batch_normalization(inputs: Sequence[Any], attributes: Attributes) -> Value:
    values, scale, bias, mean, variance = inputs
    factor = scale.values * tf.math.rsqrt(variance.values + attributes.get("epsilon", 1e-5))
    shift = bias.values - mean.values * factor
    if len(values.values.shape) == _IMAGE_RANK:
        return Value(as_last(values).values * factor + shift, last=True)
    return Value(values.values * factor + shift)


def _clip(inputs: Sequence[Any], attributes: Attributes) -> Value:
    low, high = (
        inputs[position].values
        if len(inputs) > position and inputs[position] is not None
        else attributes.get(name)
        for position, name in ((1, "min"), (2, "max"))
    )
    values = inputs[0].values
    values = values if low is None else tf.maximum(values, low)
    return Value(values if high is None else tf.minimum(values, high), inputs[0].last)


def _concat(inputs: Sequence[Any], attributes: Attributes) -> Value:
    axis = attributes["axis"]
    if all(value.last for value in inputs):
        return Value(tf.concat([value.values for value in inputs], (0, 3, 1, 2)[axis]), last=True)
    return Value(tf.concat([plain(value) for value in inputs], axis))


def _gemm(attributes: Attributes, left: Any, right: Any, bias: Any = None) -> Any:
    product = attributes.get("alpha", 1.0) * tf.linalg.matmul(
        left,
        right,
        transpose_a=bool(attributes.get("transA", 0)),
        transpose_b=bool(attributes.get("transB", 0)),
    )
    return product if bias is None else product + attributes.get("beta", 1.0) * bias


def _flatten(attributes: Attributes, values: Any) -> Any:
    if attributes.get("axis", 1) != 1:
        raise NotImplementedError("Flatten of another axis than 1")
    return tf.reshape(values, [-1, int(np.prod(values.shape[1:]))])


def _reshape(_: Attributes, values: Any, shape: Any) -> Any:
    if tf.is_symbolic_tensor(shape):
        return tf.reshape(values, shape)
    wanted = [int(size) for size in numbers(shape)]
    sizes: list[Any] = [values.shape[at] if size == 0 else size for at, size in enumerate(wanted)]
    # Where the first dimension stays, it is the photos: a file that was exported for one takes any number.
    if wanted[0] in {0, 1} and values.shape[0] != 1:
        sizes[0] = tf.shape(values)[0]
        if -1 not in wanted:
            sizes[0] = -1
    return tf.reshape(values, sizes)


def _pad(attributes: Attributes, values: Any, pads: Any = None, fill: Any = None, _axes: Any = None) -> Any:
    if attributes.get("mode", b"constant") != b"constant" or _axes is not None:
        raise NotImplementedError("Pad of another mode than constant")
    before, after = np.split(np.asarray(attributes.get("pads") if pads is None else numbers(pads)), 2)
    value = attributes.get("value", 0.0) if fill is None else fill
    return tf.pad(values, np.stack([before, after], 1), constant_values=value)


def _slice(  # noqa: PLR0917 - ONNX passes them by place
    attributes: Attributes,
    values: Any,
    starts: Any = None,
    ends: Any = None,
    axes: Any = None,
    steps: Any = None,
) -> Any:
    first, last = (
        attributes[name] if given is None else numbers(given)
        for name, given in (("starts", starts), ("ends", ends))
    )
    chosen = [slice(None)] * len(values.shape)
    places = _axes(attributes, axes) or range(len(first))
    for at, axis in enumerate(places):
        step = 1 if steps is None else int(numbers(steps)[at])
        limit = 2**31 - 1  # exporters write the largest integer for "to the end"
        end = None if int(last[at]) >= limit or int(last[at]) < -limit else int(last[at])
        chosen[axis] = slice(int(first[at]), end, step)
    return values[tuple(chosen)]


def _split(attributes: Attributes, values: Any, sizes: Any = None) -> list[Any]:
    axis = attributes.get("axis", 0)
    given = attributes.get("split") if sizes is None else numbers(sizes)
    if given is None:
        given = attributes["num_outputs"]
    return list(tf.split(values, given if isinstance(given, int) else [int(size) for size in given], axis))


def _squeeze(attributes: Attributes, values: Any, axes: Any = None) -> Any:
    return tf.squeeze(values, _axes(attributes, axes))


def _unsqueeze(attributes: Attributes, values: Any, axes: Any = None) -> Any:
    for axis in sorted(_axes(attributes, axes) or []):
        values = tf.expand_dims(values, axis)
    return values


def _layer_normalization(attributes: Attributes, values: Any, scale: Any, bias: Any = None) -> Any:
    axes = list(range(attributes.get("axis", -1) % len(values.shape), len(values.shape)))
    mean, variance = tf.nn.moments(values, axes, keepdims=True)
    result = (values - mean) * tf.math.rsqrt(variance + attributes.get("epsilon", 1e-5)) * scale
    return result if bias is None else result + bias


def _per_channel(attributes: Attributes, values: Any, numbers_: Any) -> Any:
    """Give scales per channel the shape in which they are broadcast."""
    if numbers_ is None or len(numbers_.shape) == 0:
        return 0.0 if numbers_ is None else tf.cast(numbers_, tf.float32)
    shape = [1] * len(values.shape)
    shape[attributes.get("axis", 1)] = -1
    return tf.reshape(tf.cast(numbers_, tf.float32), shape)


def _quantize(attributes: Attributes, values: Any, scale: Any, zero: Any = None) -> Any:
    kind = np.uint8 if zero is None else zero.dtype
    limits = np.iinfo(kind.as_numpy_dtype if isinstance(kind, tf.DType) else kind)
    steps = values / _per_channel(attributes, values, scale)
    return tf.clip_by_value(tf.round(steps) + _per_channel(attributes, values, zero), limits.min, limits.max)


def _dequantize(attributes: Attributes, values: Any, scale: Any, zero: Any = None) -> Any:
    difference = tf.cast(values, tf.float32) - _per_channel(attributes, values, zero)
    return difference * _per_channel(attributes, values, scale)


def _softmax(function: Callable[..., Any]) -> Operator:
    return _plain(lambda attributes, values: function(values, axis=attributes.get("axis", -1)))


def _gelu(values: Any, approximate: Any) -> Any:
    return tf.nn.gelu(values, approximate=approximate == b"tanh")


OPERATORS: Mapping[str, Operator] = {
    "Abs": _unary(tf.abs),
    "Add": _binary(tf.add),
    "AveragePool": average_pool,
    "BatchNormalization": _batch_normalization,
    "Cast": _plain(lambda attributes, values: tf.cast(values, tf.as_dtype(attributes["to"]))),
    "Clip": _clip,
    "Concat": _concat,
    "Conv": convolution,
    "DequantizeLinear": _plain(_dequantize),
    "Div": _binary(tf.divide),
    "Dropout": _unary(tf.identity),
    "Elu": _unary(
        lambda values, alpha: tf.where(values > 0, values, alpha * tf.math.expm1(values)), alpha=1.0
    ),
    "Erf": _unary(tf.math.erf),
    "Exp": _unary(tf.exp),
    "Expand": _plain(lambda _, values, shape: values + tf.zeros(shape, values.dtype)),
    "Flatten": _plain(_flatten),
    "Gather": _plain(lambda attributes, values, at: tf.gather(values, at, axis=attributes.get("axis", 0))),
    "Gelu": _unary(_gelu, approximate=0),
    "Gemm": _plain(_gemm),
    "GlobalAveragePool": _global_pool(tf.reduce_mean),
    "GlobalMaxPool": _global_pool(tf.reduce_max),
    "HardSigmoid": _unary(
        lambda values, alpha, beta: tf.clip_by_value(alpha * values + beta, 0.0, 1.0), alpha=0.2, beta=0.5
    ),
    "HardSwish": _unary(lambda values: values * tf.nn.relu6(values + 3.0) / 6.0),
    "Identity": _unary(tf.identity),
    "LayerNormalization": _plain(_layer_normalization),
    "LeakyRelu": _unary(tf.nn.leaky_relu, alpha=0.01),
    "Log": _unary(tf.math.log),
    "LogSoftmax": _softmax(tf.nn.log_softmax),
    "MatMul": _plain(lambda _, left, right: tf.linalg.matmul(left, right)),
    "Max": _binary(tf.maximum),
    "MaxPool": max_pool,
    "Min": _binary(tf.minimum),
    "Mul": _binary(tf.multiply),
    "Neg": _unary(tf.negative),
    "PRelu": _binary(lambda values, slope: tf.maximum(values, 0.0) + slope * tf.minimum(values, 0.0)),
    "Pad": _plain(_pad),
    "Pow": _binary(lambda values, power: tf.pow(values, tf.cast(power, values.dtype))),
    "QuantizeLinear": _plain(_quantize),
    "Reciprocal": _unary(tf.math.reciprocal),
    "ReduceL2": _reduction(tf.norm),
    "ReduceMax": _reduction(tf.reduce_max),
    "ReduceMean": _reduction(tf.reduce_mean),
    "ReduceSum": _reduction(tf.reduce_sum),
    "Relu": _unary(tf.nn.relu),
    "Reshape": _plain(_reshape),
    "Shape": _plain(lambda _, values: tf.shape(values, tf.int64)),
    "Sigmoid": _unary(tf.sigmoid),
    "Slice": _plain(_slice),
    "Softmax": _softmax(tf.nn.softmax),
    "Softplus": _unary(tf.math.softplus),
    "Split": _plain(_split),
    "Sqrt": _unary(tf.sqrt),
    "Squeeze": _plain(_squeeze),
    "Sub": _binary(tf.subtract),
    "Sum": _binary(tf.add),
    "Tanh": _unary(tf.tanh),
    "Transpose": _plain(lambda attributes, values: tf.transpose(values, attributes.get("perm"))),
    "Unsqueeze": _plain(_unsqueeze),
}
"""By name, of ONNX's own domain."""
