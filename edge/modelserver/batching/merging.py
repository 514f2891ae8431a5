"""Merge the inputs of several calls into one batch, and split its outputs."""

from collections.abc import Mapping, Sequence

import numpy as np

from edge.modelserver.status import Code, ServingError
from edge.modelserver.tensors import Array

Feeds = Mapping[str, Array]


def count_rows(feeds: Feeds) -> int:
    """Return the rows of a call: the size of the first dimension, which all inputs share.

    Raises:
        ServingError: INVALID_ARGUMENT if an input is a scalar or the sizes differ.
    """
    if not feeds:
        raise ServingError(Code.INVALID_ARGUMENT, "Batching Run() must have at least one input tensor")
    if any(array.ndim == 0 for array in feeds.values()):
        raise ServingError(
            Code.INVALID_ARGUMENT, "Batching Run() input tensors must have at least one dimension"
        )
    sizes: set[int] = {array.shape[0] for array in feeds.values()}
    if len(sizes) > 1:
        raise ServingError(
            Code.INVALID_ARGUMENT, "Batching Run() input tensors must have equal 0th-dimension size"
        )
    return sizes.pop()


def slice_rows(feeds: Feeds, start: int, stop: int) -> dict[str, Array]:
    """Return rows `start` to `stop` of each input."""
    return {name: array[start:stop] for name, array in feeds.items()}


def padding_rows(size: int, allowed_sizes: Sequence[int]) -> int:
    """Return how many rows to add to reach the next allowed size (increasing; empty: any size)."""
    return next((allowed - size for allowed in allowed_sizes if allowed >= size), 0)


def merge(calls: Sequence[Feeds], *, padding: int, pad_variable_length: bool) -> dict[str, Array]:
    """Concatenate the inputs of calls along the first dimension.

    Args:
        calls: inputs by name, the same names in each call; at least one call.
        padding: rows to append; copies of the first row of the last call.
        pad_variable_length: pad inputs of different shapes to the largest one instead of refusing them.

    Raises:
        ServingError: FAILED_PRECONDITION for inputs of different shapes without `pad_variable_length`.
    """
    return {
        name: _merge_input(name, [call[name] for call in calls], padding, pad_variable_length)
        for name in calls[0]
    }


def _merge_input(name: str, arrays: list[Array], padding: int, pad: bool) -> Array:  # noqa: FBT001 - private, passed on
    if pad:
        arrays = _same_shape(arrays)
    elif any(array.shape[1:] != arrays[0].shape[1:] for array in arrays):
        # The message is TensorFlow Serving's, with its missing spaces.
        raise ServingError(
            Code.FAILED_PRECONDITION,
            f"Tensors with name '{name}' from different tasks have different shapes and padding is turned "
            "off.Set pad_variable_length_inputs to true, or ensure that all tensors with the same name"
            "have equal dimensions starting with the first dim.",
        )
    if padding:
        # A row that exists is valid input; zeros or empty strings could fail in the graph.
        arrays = [*arrays, np.repeat(arrays[-1][:1], padding, axis=0)]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _same_shape(arrays: list[Array]) -> list[Array]:
    """Pad each dimension except the first at its end, with the first value of the array."""
    if any(array.ndim != arrays[0].ndim for array in arrays):
        raise ServingError(Code.INVALID_ARGUMENT, "Only tensors of the same rank can be padded.")
    largest = np.max([array.shape[1:] for array in arrays], axis=0) if arrays[0].ndim > 1 else ()
    return [_padded(array, tuple(int(size) for size in largest)) for array in arrays]


def _padded(array: Array, largest: tuple[int, ...]) -> Array:
    if array.shape[1:] == largest:
        return array
    if array.size == 0:
        raise ServingError(Code.INVALID_ARGUMENT, "Got empty tensor in batch of non-empty tensors.")
    whole = np.full((array.shape[0], *largest), array.flat[0], array.dtype)
    whole[tuple(slice(size) for size in array.shape)] = array
    return whole


def split(outputs: Sequence[Array], sizes: Sequence[int], *, padding: int) -> list[list[Array]]:
    """Split the outputs of a batch by call.

    Args:
        outputs: outputs of the batch.
        sizes: rows of each call, in order.
        padding: padding rows at the end, which are dropped.

    Returns:
        The outputs of each call.

    Raises:
        ServingError: FAILED_PRECONDITION if an output does not have one row per input row.
    """
    expected = sum(sizes) + padding
    for output in outputs:
        if output.ndim == 0:
            raise ServingError(Code.FAILED_PRECONDITION, "Batched output tensor has 0 dimensions")
        if output.shape[0] != expected:
            raise ServingError(
                Code.FAILED_PRECONDITION,
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes "
                "of the input tensors",
            )
    ends = np.cumsum(sizes).tolist()
    return [[output[end - size : end] for output in outputs] for end, size in zip(ends, sizes, strict=True)]
