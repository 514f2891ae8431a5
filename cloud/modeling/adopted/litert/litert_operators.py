"""The operators of LiteRT that classifiers use, as functions of TensorFlow on real numbers.

Quantised tensors are computed as the real numbers that their integers stand for; rounding to the scale of a
tensor is done by the caller.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

Operator = Callable[[Sequence[Any], Any, Sequence[int]], Any]
"""From inputs, the options of the operator and the shape of its output to the output."""

_PADDING = ("SAME", "VALID")
_ACTIVATIONS: Mapping[int, Callable[[Any], Any]] = {
    0: tf.identity,
    1: tf.nn.relu,
    2: lambda x: tf.clip_by_value(x, -1.0, 1.0),
    3: tf.nn.relu6,
    4: tf.nn.tanh,
}


def activated(values: Any, options: Any) -> Any:
    """Apply the activation that is fused into an operator.

    Raises:
        KeyError: TensorFlow has no such activation.
    """
    return _ACTIVATIONS[getattr(options, "fusedActivationFunction", 0) if options is not None else 0](values)


def _strides(options: Any) -> list[int]:
    return [1, options.strideH, options.strideW, 1]


def _convolution(inputs: Sequence[Any], options: Any, _: Sequence[int]) -> Any:
    images, kernel, *bias = inputs
    values = tf.nn.conv2d(
        images,
        tf.transpose(kernel, [1, 2, 3, 0]),
        _strides(options),
        _PADDING[options.padding],
        dilations=[options.dilationHFactor, options.dilationWFactor],
    )
    return values + bias[0] if bias else values


def _depthwise(inputs: Sequence[Any], options: Any, _: Sequence[int]) -> Any:
    images, kernel, *bias = inputs
    _, height, width, channels = kernel.shape
    values = tf.nn.depthwise_conv2d(
        images,
        tf.reshape(kernel, [height, width, channels // options.depthMultiplier, options.depthMultiplier]),
        _strides(options),
        _PADDING[options.padding],
        dilations=[options.dilationHFactor, options.dilationWFactor],
    )
    return values + bias[0] if bias else values


def _dense(inputs: Sequence[Any], _: Any, shape: Sequence[int]) -> Any:
    values, kernel, *bias = inputs
    if len(shape) == 2:  # noqa: PLR2004 - rows of numbers
        values = tf.reshape(values, [-1, kernel.shape[1]])
    product = tf.linalg.matmul(values, kernel, transpose_b=True)
    return product + bias[0] if bias else product


def _pool(function: Callable[..., Any]) -> Operator:
    def pool(inputs: Sequence[Any], options: Any, _: Sequence[int]) -> Any:
        window = [1, options.filterHeight, options.filterWidth, 1]
        return function(inputs[0], window, _strides(options), _PADDING[options.padding])

    return pool


def _reduction(function: Callable[..., Any]) -> Operator:
    def reduce(inputs: Sequence[Any], options: Any, _: Sequence[int]) -> Any:
        return function(inputs[0], np.asarray(inputs[1]).tolist(), keepdims=options.keepDims)

    return reduce


def _reshape(inputs: Sequence[Any], _: Any, shape: Sequence[int]) -> Any:
    # The file has the shape for one photo. The first dimension stays free: a batch has any size.
    return tf.reshape(inputs[0], [-1, *shape[1:]])


def _strided_slice(inputs: Sequence[Any], options: Any, _: Sequence[int]) -> Any:
    return tf.strided_slice(
        *inputs,
        begin_mask=options.beginMask,
        end_mask=options.endMask,
        ellipsis_mask=options.ellipsisMask,
        new_axis_mask=options.newAxisMask,
        shrink_axis_mask=options.shrinkAxisMask,
    )


def _resize(method: str) -> Operator:
    def resize(inputs: Sequence[Any], options: Any, _: Sequence[int]) -> Any:
        function = getattr(tf.raw_ops, method)
        return function(
            images=inputs[0],
            size=inputs[1],
            align_corners=options.alignCorners,
            half_pixel_centers=options.halfPixelCenters,
        )

    return resize


def _unary(function: Callable[[Any], Any]) -> Operator:
    return lambda inputs, options, shape: function(inputs[0])  # noqa: ARG005 - one form for all operators


def _binary(function: Callable[[Any, Any], Any]) -> Operator:
    return lambda inputs, options, shape: function(inputs[0], inputs[1])  # noqa: ARG005 - as above


OPERATORS: Mapping[str, Operator] = {
    "ABS": _unary(tf.abs),
    "ADD": _binary(tf.add),
    "AVERAGE_POOL_2D": _pool(tf.nn.avg_pool2d),
    "BATCH_MATMUL": lambda inputs, options, _: tf.linalg.matmul(
        inputs[0], inputs[1], adjoint_a=options.adjX, adjoint_b=options.adjY
    ),
    "BATCH_TO_SPACE_ND": lambda inputs, _, __: tf.batch_to_space(*inputs),
    "CAST": _unary(lambda values: tf.cast(values, tf.float32)),
    "CONCATENATION": lambda inputs, options, _: tf.concat(list(inputs), options.axis),
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "DEQUANTIZE": _unary(tf.identity),
    "DIV": _binary(tf.divide),
    "ELU": _unary(tf.nn.elu),
    "EXP": _unary(tf.exp),
    "EXPAND_DIMS": lambda inputs, _, __: tf.expand_dims(inputs[0], int(np.asarray(inputs[1]).ravel()[0])),
    "FULLY_CONNECTED": _dense,
    "GELU": lambda inputs, options, _: tf.nn.gelu(inputs[0], approximate=options.approximate),
    "HARD_SWISH": _unary(lambda values: values * tf.nn.relu6(values + 3.0) / 6.0),
    "L2_NORMALIZATION": _unary(lambda values: tf.linalg.l2_normalize(values, axis=-1)),
    "LEAKY_RELU": lambda inputs, options, _: tf.nn.leaky_relu(inputs[0], options.alpha),
    "LOG": _unary(tf.math.log),
    "LOGISTIC": _unary(tf.sigmoid),
    "LOG_SOFTMAX": _unary(tf.nn.log_softmax),
    "MAXIMUM": _binary(tf.maximum),
    "MAX_POOL_2D": _pool(tf.nn.max_pool2d),
    "MEAN": _reduction(tf.reduce_mean),
    "MINIMUM": _binary(tf.minimum),
    "MUL": _binary(tf.multiply),
    "NEG": _unary(tf.negative),
    "PACK": lambda inputs, options, _: tf.stack(list(inputs), options.axis),
    "PAD": _binary(tf.pad),
    "PADV2": lambda inputs, _, __: tf.pad(inputs[0], inputs[1], constant_values=inputs[2]),
    "POW": _binary(tf.pow),
    "PRELU": _binary(lambda values, slope: tf.maximum(values, 0.0) + slope * tf.minimum(values, 0.0)),
    "QUANTIZE": _unary(tf.identity),
    "REDUCE_MAX": _reduction(tf.reduce_max),
    "RELU": _unary(tf.nn.relu),
    "RELU6": _unary(tf.nn.relu6),
    "RELU_N1_TO_1": _unary(lambda values: tf.clip_by_value(values, -1.0, 1.0)),
    "RESHAPE": _reshape,
    "RESIZE_BILINEAR": _resize("ResizeBilinear"),
    "RESIZE_NEAREST_NEIGHBOR": _resize("ResizeNearestNeighbor"),
    "RSQRT": _unary(tf.math.rsqrt),
    "SHAPE": _unary(tf.shape),
    "SOFTMAX": lambda inputs, options, _: tf.nn.softmax(inputs[0] * options.beta),
    "SPACE_TO_BATCH_ND": lambda inputs, _, __: tf.space_to_batch(*inputs),
    "SPLIT": lambda inputs, options, _: tf.split(
        inputs[1], options.numSplits, int(np.asarray(inputs[0]).ravel()[0])
    ),
    "SQRT": _unary(tf.sqrt),
    "SQUARE": _unary(tf.square),
    "SQUARED_DIFFERENCE": _binary(tf.math.squared_difference),
    "SQUEEZE": _reshape,
    "STRIDED_SLICE": _strided_slice,
    "SUB": _binary(tf.subtract),
    "SUM": _reduction(tf.reduce_sum),
    "TANH": _unary(tf.tanh),
    "TRANSPOSE": lambda inputs, _, __: tf.transpose(inputs[0], np.asarray(inputs[1]).tolist()),
}
"""By name of `BuiltinOperator`."""
