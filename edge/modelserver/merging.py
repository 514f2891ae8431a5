"""Merging the inputs of several calls into one batch, and splitting its outputs again. No threads."""

from collections.abc import Mapping, Sequence

import numpy as np

from edge.modelserver.status import Code, ServingError
from edge.modelserver.tensors import Array

Feeds = Mapping[str, Array]


def rows(feeds: Feeds) -> int:
    """Count the rows of a call: the size of the first dimension, the same for each input.

    Raises:
        ServingError: INVALID_ARGUMENT where an input has no dimension, or the sizes differ.
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


def sliced(feeds: Feeds, start: int, stop: int) -> dict[str, Array]:
    """Take the rows from `start` up to `stop` of each input."""
    return {name: array[start:stop] for name, array in feeds.items()}


def padding(size: int, allowed_sizes: Sequence[int]) -> int:
    """Say how many rows to add so that a batch has an allowed size (increasing; empty for any)."""
    return next((allowed - size for allowed in allowed_sizes if allowed >= size), 0)


def merged(calls: Sequence[Feeds], *, padding_rows: int, pad_variable_length: bool) -> dict[str, Array]:
    """Concatenate the inputs of calls along the first dimension.

    Args:
        calls: inputs of the same names, at least one call.
        padding_rows: rows to add behind; they repeat the first row of the last call.
        pad_variable_length: bring inputs of different shapes to the largest one, instead of refusing.

    Raises:
        ServingError: FAILED_PRECONDITION for inputs of different shapes that are not to be padded.
    """
    return {
        name: _merged(name, [call[name] for call in calls], padding_rows, pad_variable_length)
        for name in calls[0]
    }


def _merged(name: str, arrays: list[Array], padding_rows: int, pad: bool) -> Array:  # noqa: FBT001 - private, passed on
    if pad:
        arrays = _same_shape(arrays)
    elif any(array.shape[1:] != arrays[0].shape[1:] for array in arrays):
        raise ServingError(
            Code.FAILED_PRECONDITION,
            f"Tensors with name '{name}' from different tasks have different shapes and padding is turned "
            "off.Set pad_variable_length_inputs to true, or ensure that all tensors with the same name"
            "have equal dimensions starting with the first dim.",
        )
    if padding_rows:
        arrays = [*arrays, np.repeat(arrays[-1][:1], padding_rows, axis=0)]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _same_shape(arrays: list[Array]) -> list[Array]:
    """Pad behind in each dimension but the first, with the array's own first value."""
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


def split(outputs: Sequence[Array], sizes: Sequence[int], *, padding_rows: int) -> list[list[Array]]:
    """Give each call its rows of a batch's outputs.

    Args:
        outputs: what the batch computed.
        sizes: the rows of each call, in their order.
        padding_rows: rows behind that belong to nobody.

    Returns:
        The outputs of each call.

    Raises:
        ServingError: FAILED_PRECONDITION for an output that has not one row per row of input.
    """
    expected = sum(sizes) + padding_rows
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
