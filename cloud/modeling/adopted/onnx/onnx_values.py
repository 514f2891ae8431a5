"""Values of an ONNX graph: tensors of TensorFlow that know where their channels are."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

Attributes = Mapping[str, Any]


class Value(NamedTuple):
    """A tensor of a graph.

    Attributes:
        values: an array, a variable or a tensor.
        last: whether it has been kept as `[N, H, W, C]`, where ONNX has `[N, C, H, W]`.
    """

    values: Any
    last: bool = False


def plain(value: Value) -> Any:
    """Return the tensor as ONNX has it."""
    return tf.transpose(value.values, [0, 3, 1, 2]) if value.last else value.values


def as_last(value: Value) -> Value:
    """Return the value of rank 4 with the channels last."""
    return value if value.last else Value(tf.transpose(value.values, [0, 2, 3, 1]), last=True)


def numbers(values: Any) -> Any:
    """Return numbers that are known before a photo is.

    Raises:
        NotImplementedError: they are computed from the photo.
    """
    found = values if isinstance(values, np.ndarray) else tf.get_static_value(values)
    if found is None:
        raise NotImplementedError("axes or sizes that are computed from the photo")
    return np.asarray(found).ravel()
