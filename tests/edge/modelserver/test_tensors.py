"""TensorProto to array and back, with TensorFlow's own conversion as the judge."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from edge.modelserver import tensors

NAMES = [
    "float32",
    "float64",
    "int32",
    "uint8",
    "int16",
    "int8",
    "complex64",
    "int64",
    "bool",
    "bfloat16",
    "uint16",
    "complex128",
    "float16",
    "uint32",
    "uint64",
]


def _array(name: str) -> Any:
    return np.array([[0, 1, 2], [3, 4, 5]]).astype(tf.as_dtype(name).as_numpy_dtype)


@pytest.mark.parametrize("name", NAMES)
def test_every_type_is_read_from_content(name: str) -> None:
    """The tensor_content that TensorFlow writes is read as the same array."""
    array = _array(name)
    proto = tf.make_tensor_proto(array)
    got = tensors.to_array(proto)
    assert got.dtype == array.dtype
    assert np.array_equal(got, array)


@pytest.mark.parametrize("name", NAMES)
def test_every_type_is_written_as_tensorflow_reads_it(name: str) -> None:
    """Typed fields are written so that TensorFlow reads the same array; tensor_content stays empty."""
    array, proto = _array(name), type(tf.make_tensor_proto(0))()
    tensors.write(proto, array)
    assert proto.tensor_content == b""
    for got in (tf.make_ndarray(proto), tensors.to_array(proto)):
        assert got.dtype == array.dtype
        assert np.array_equal(got, array)


def test_strings_are_read_and_written() -> None:
    """Strings are bytes of any content in an object array."""
    array = np.array([[b"", b"\xff\x00"], [b"cat", b"x" * 300]], object)
    proto = tf.make_tensor_proto(array)
    assert tensors.to_array(proto).tolist() == array.tolist()
    written = type(proto)()
    tensors.write(written, array)
    assert written == proto


def test_strings_are_read_from_content() -> None:
    """Packed strings are varint lengths followed by the bytes, as TensorFlow writes them."""
    strings = [b"", b"cat", b"x" * 300]
    proto = tf.make_tensor_proto(strings)
    proto.ClearField("string_val")
    proto.tensor_content = b"\x00\x03\xac\x02" + b"".join(strings)
    assert tensors.to_array(proto).tolist() == strings


@pytest.mark.parametrize(("values", "expected"), [([], [0, 0, 0]), ([7], [7, 7, 7]), ([1, 2], [1, 2, 2])])
def test_missing_values_repeat_the_last(values: list[int], expected: list[int]) -> None:
    """Fewer values than elements repeat the last one; no values are zeros."""
    proto = tf.make_tensor_proto([0, 0, 0], dtype="int64")
    proto.ClearField("tensor_content")
    proto.ClearField("int64_val")
    proto.int64_val.extend(values)
    assert tensors.to_array(proto).tolist() == expected


def test_scalars_have_no_dimension() -> None:
    """A tensor of rank 0 stays one."""
    proto = type(tf.make_tensor_proto(0))()
    tensors.write(proto, np.array(1.5, np.float32))
    assert tensors.to_array(proto).shape == ()
    assert tf.make_ndarray(proto) == 1.5


def _broken(**changes: Any) -> Any:
    proto = tf.make_tensor_proto([1.0, 2.0])
    for name, value in changes.items():
        if name == "size":
            proto.tensor_shape.dim[0].size = value
        elif name == "unknown_rank":
            proto.tensor_shape.unknown_rank = value
        else:
            setattr(proto, name, value)
    return proto


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": 0},
        {"dtype": 20},
        {"dtype": 101},
        {"size": -1},
        {"unknown_rank": True},
        {"tensor_content": b"1234567"},
        {"size": 2**60, "tensor_content": b""},
        {"dtype": 7, "tensor_content": b"\x01"},
        {"dtype": 7, "tensor_content": b"\x01\x01a"},
        {"dtype": 7, "tensor_content": b"\xff" * 20},
    ],
)
def test_an_invalid_tensor_is_refused(changes: dict[str, Any]) -> None:
    """An unknown type or shape, content of the wrong length, or too many repeated values: an error."""
    with pytest.raises(tensors.TensorError):
        tensors.to_array(_broken(**changes))
