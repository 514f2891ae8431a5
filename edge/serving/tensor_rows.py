"""Read float32 tensors of an answer into arrays, without NumPy."""

import math
from array import array

from edge.serving import messages_pb2 as messages

_DT_FLOAT = 1
_MATRIX = 2


def rows(tensor: messages.TensorProto, count: int) -> "list[array[float]]":
    """Return the rows of a float32 matrix.

    Raises:
        ValueError: The tensor is not a float32 matrix of this number of rows; the text names type and shape.
    """
    width = tensor.tensor_shape.dim[1].size if len(tensor.tensor_shape.dim) == _MATRIX else 0
    values = read_values(tensor, [count, width])
    return [values[row * width : (row + 1) * width] for row in range(count)]


def read_values(tensor: messages.TensorProto, wanted: list[int]) -> "array[float]":
    """Return the values of a float32 tensor.

    Raises:
        ValueError: The tensor has another type, shape or length; the text names them.
    """
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.dtype != _DT_FLOAT or shape != wanted:
        raise ValueError(f"type {tensor.dtype} of shape {shape} for {wanted[0]} images")
    size = math.prod(shape)
    values = array("f", tensor.tensor_content or tensor.float_val)  # servers fill one or the other
    if len(values) < size:  # TensorProto omits trailing repetitions of the last value
        values.extend([values[-1] if values else 0.0] * (size - len(values)))
    return values
