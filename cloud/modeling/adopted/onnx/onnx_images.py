"""Convolution and pooling of ONNX in TensorFlow."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from cloud.modeling.adopted.onnx.onnx_values import Attributes, Value, as_last

_IMAGE_RANK = 4
_LOWEST = -1e30


def convolution(inputs: Sequence[Any], attributes: Attributes) -> Value:
    """Compute Conv, also with groups.

    Raises:
        NotImplementedError: it has another number of dimensions than two.
    """
    images, kernel = as_last(_images(inputs[0])).values, inputs[1].values
    dilations = list(attributes.get("dilations", (1, 1)))
    groups, channels = attributes.get("group", 1), images.shape[-1]
    window = list(kernel.shape[2:])
    images, padding = _padded(images, window, attributes, dilations)
    kernel = tf.transpose(kernel, [2, 3, 1, 0])
    strides = [1, *attributes.get("strides", (1, 1)), 1]
    if groups > 1 and groups == channels:
        kernel = tf.reshape(kernel, [*window, channels, kernel.shape[-1] // channels])
        values = tf.nn.depthwise_conv2d(images, kernel, strides, padding, dilations=dilations)
    else:
        values = tf.nn.conv2d(images, kernel, strides, padding, dilations=dilations)
    bias = inputs[2].values if len(inputs) > 2 and inputs[2] is not None else None  # noqa: PLR2004 - Conv has three
    return Value(values if bias is None else values + bias, last=True)


def max_pool(inputs: Sequence[Any], attributes: Attributes) -> Value:
    """Compute MaxPool.

    Raises:
        NotImplementedError: it rounds sizes up, or has another number of dimensions than two.
    """
    return _pool(tf.nn.max_pool2d, _images(inputs[0]), attributes, _LOWEST)


def average_pool(inputs: Sequence[Any], attributes: Attributes) -> Value:
    """Compute AveragePool.

    Raises:
        NotImplementedError: as for `max_pool`.
    """
    values = _pool(tf.nn.avg_pool2d, _images(inputs[0]), attributes, 0.0)
    if not any(attributes.get("pads", ())) or attributes.get("count_include_pad", 0):
        return values
    # Padding does not count: divide by the share of each window that lies in the photo.
    ones = Value(tf.ones_like(as_last(inputs[0]).values[:1, ..., :1]), last=True)
    return Value(values.values / _pool(tf.nn.avg_pool2d, ones, attributes, 0.0).values, last=True)


def _images(value: Value) -> Value:
    if len(value.values.shape) != _IMAGE_RANK:
        raise NotImplementedError("convolution or pooling of other dimensions than two")
    return value


def _pool(function: Callable[..., Any], value: Value, attributes: Attributes, fill: float) -> Value:
    if attributes.get("ceil_mode", 0) or set(attributes.get("dilations", ())) - {1}:
        raise NotImplementedError("pooling with ceil_mode or dilations")
    window, strides = list(attributes["kernel_shape"]), [1, *attributes.get("strides", (1, 1)), 1]
    images, auto = as_last(value).values, attributes.get("auto_pad", b"NOTSET")
    if auto == b"SAME_UPPER" and not attributes.get("count_include_pad", 0):
        return Value(function(images, [1, *window, 1], strides, "SAME"), last=True)
    if auto not in {b"NOTSET", b"VALID"}:
        raise NotImplementedError(f"pooling with auto_pad {auto.decode()}")
    if any(attributes.get("pads", ())):
        images = tf.pad(images, _explicit(attributes), constant_values=fill)
    return Value(function(images, [1, *window, 1], strides, "VALID"), last=True)


def _explicit(attributes: Attributes) -> list[list[int]]:
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    return [[0, 0], [top, bottom], [left, right], [0, 0]]


def _padded(
    images: Any, window: Sequence[int], attributes: Attributes, dilations: Sequence[int]
) -> tuple[Any, str]:
    """Return the padded images, and the padding that is left to TensorFlow."""
    auto = attributes.get("auto_pad", b"NOTSET")
    if auto == b"SAME_UPPER":
        return images, "SAME"
    if auto == b"SAME_LOWER":
        raise NotImplementedError("convolution with auto_pad SAME_LOWER")
    pads = _explicit(attributes)
    if not any(map(any, pads)):
        return images, "VALID"
    totals = [dilation * (size - 1) for dilation, size in zip(dilations, window, strict=True)]
    same = [[0, 0], *([total // 2, total - total // 2] for total in totals), [0, 0]]
    if pads == same and list(attributes.get("strides", (1, 1))) == [1, 1]:
        return images, "SAME"  # one operation less
    return tf.pad(images, pads), "VALID"
