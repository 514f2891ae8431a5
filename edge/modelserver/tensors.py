"""Convert TensorProto to numpy arrays and back, by TensorFlow's rules."""

import math
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from edge.serving import messages_pb2 as messages

Array = NDArray[Any]

FILL_LIMIT_BYTES = 1 << 28
"""Maximum size of a tensor with fewer values than elements, so that a short request cannot use up memory."""

_BITS16 = np.uint16
_STRING = 7


class _Type(NamedTuple):
    name: str
    dtype: np.dtype[Any]
    field: str


def _type(name: str, dtype: Any, field: str) -> _Type:
    return _Type(name, np.dtype(dtype), field)


_TYPES = {
    1: _type("float", np.float32, "float_val"),
    2: _type("double", np.float64, "double_val"),
    3: _type("int32", np.int32, "int_val"),
    4: _type("uint8", np.uint8, "int_val"),
    5: _type("int16", np.int16, "int_val"),
    6: _type("int8", np.int8, "int_val"),
    _STRING: _type("string", np.object_, "string_val"),
    8: _type("complex64", np.complex64, "scomplex_val"),
    9: _type("int64", np.int64, "int64_val"),
    10: _type("bool", np.bool_, "bool_val"),
    14: _type("bfloat16", ml_dtypes.bfloat16, "half_val"),
    17: _type("uint16", np.uint16, "int_val"),
    18: _type("complex128", np.complex128, "dcomplex_val"),
    19: _type("half", np.float16, "half_val"),
    22: _type("uint32", np.uint32, "uint32_val"),
    23: _type("uint64", np.uint64, "uint64_val"),
}
_NUMBERS = {kind.dtype: number for number, kind in _TYPES.items()}
_PACKED = {"float_val": b"\x2a", "double_val": b"\x32"}  # the wire tags of these fields of TensorProto


class TensorError(ValueError):
    """The TensorProto is invalid."""


def type_name(number: int) -> str:
    """Return the name of a DataType as in TensorFlow's messages ("float", "string")."""
    return _TYPES[number].name if number in _TYPES else f"unknown dtype enum ({number})"


def type_number(array: Array) -> int:
    """Return the DataType of an array from `to_array` or from a session."""
    return _NUMBERS[array.dtype]


def to_array(proto: messages.TensorProto) -> Array:
    """Convert a TensorProto to an array.

    If `tensor_content` is empty and there are fewer values than elements, the last value is repeated; without
    any value the tensor is zero.

    Returns:
        An array of the tensor's shape; strings are `bytes` in an object array. It may be read-only.

    Raises:
        TensorError: unsupported type, shape not fully known, length of the content not that of the shape,
            or repeated values of more than `FILL_LIMIT_BYTES`.
    """
    kind = _TYPES.get(proto.dtype)
    if kind is None:
        raise TensorError(f"unsupported DataType {proto.dtype}")
    # A list, not a generator: faster, and this runs for each tensor of each request.
    shape = tuple([dim.size for dim in proto.tensor_shape.dim])
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise TensorError(f"shape is not fully known: {shape}")
    count = math.prod(shape)
    content = proto.tensor_content
    if content:
        flat = _strings(content, count) if proto.dtype == _STRING else _numbers(content, count, kind.dtype)
    else:
        flat = _values(getattr(proto, kind.field), count, kind)
    return flat.reshape(shape)


def _numbers(content: bytes, count: int, dtype: np.dtype[Any]) -> Array:
    if len(content) != count * dtype.itemsize:
        raise TensorError(f"expected {count * dtype.itemsize} bytes of content, got {len(content)}")
    return np.frombuffer(content, dtype)  # without a copy, therefore read-only


def _strings(content: bytes, count: int) -> Array:
    """Read `count` varint lengths, followed by the bytes of the strings."""
    at, lengths = 0, []
    # Each length takes a byte at least: a forged count of billions must not loop that often.
    for _ in range(min(count, len(content))):
        length, at = _varint(content, at)
        lengths.append(length)
    if len(lengths) != count or at + sum(lengths) != len(content):
        raise TensorError(f"content does not match the lengths of its {count} strings")
    flat = np.empty(count, np.object_)
    for index, length in enumerate(lengths):
        flat[index] = content[at : at + length]
        at += length
    return flat


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(content) and shift < 64:  # noqa: PLR2004 - a varint holds 64 bits at most
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at += 1
        shift += 7
        if byte < 0x80:  # noqa: PLR2004 - the top bit is set on all bytes but the last
            return value, at
    raise TensorError("content ends inside a varint length")


def _values(values: Sequence[Any], count: int, kind: _Type) -> Array:
    if kind.name.startswith("complex"):
        half = np.float32 if kind.name == "complex64" else np.float64
        # Real and imaginary parts alternate; an odd last one is dropped, as TensorFlow does.
        flat: Array = np.fromiter(values, half, len(values))[: len(values) // 2 * 2].view(kind.dtype)
    elif kind.field == "half_val":
        # `half_val` has the 16 bits of each number as an integer.
        flat = np.fromiter(values, np.int64, len(values)).astype(_BITS16).view(kind.dtype)
    elif kind.field == "string_val":
        flat = np.empty(len(values), np.object_)
        flat[:] = values
    elif kind.field == "int_val":
        flat = np.fromiter(values, np.int64, len(values)).astype(kind.dtype)
    else:
        flat = np.fromiter(values, kind.dtype, len(values))
    return flat[:count] if len(flat) >= count else _filled(flat, count, kind.dtype)


def _filled(flat: Array, count: int, dtype: np.dtype[Any]) -> Array:
    if count * dtype.itemsize > FILL_LIMIT_BYTES:
        raise TensorError(f"expected {count} values, got {len(flat)}: too many to repeat")
    zero = b"" if dtype == np.object_ else 0
    whole = np.full(count, flat[-1] if len(flat) else zero, dtype)
    whole[: len(flat)] = flat
    return whole


def write(proto: messages.TensorProto, array: Array) -> None:
    """Write an array into an empty TensorProto, in the field of its type, such as `float_val`.

    Args:
        proto: empty message to fill.
        array: of a type that `to_array` supports.
    """
    proto.dtype = _NUMBERS[array.dtype]
    kind = _TYPES[proto.dtype]
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if kind.field in _PACKED:
        # The wire format of a packed field is the array's memory: fifty times faster than a list of floats.
        content = np.ascontiguousarray(array).tobytes()
        proto.MergeFromString(_PACKED[kind.field] + _to_varint(len(content)) + content)
    else:
        getattr(proto, kind.field).extend(_flatten(array, kind).tolist())


def _flatten(array: Array, kind: _Type) -> Array:
    flat = np.ascontiguousarray(array).reshape(-1)
    if kind.field == "half_val":
        return flat.view(_BITS16)
    if kind.name.startswith("complex"):
        return flat.view(np.float32 if kind.name == "complex64" else np.float64)
    return flat


def _to_varint(size: int) -> bytes:
    out = bytearray()
    while size > 0x7F:  # noqa: PLR2004 - seven bits per byte
        out.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes(out) + struct.pack("B", size)
