"""Merging calls and splitting outputs."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.modelserver.batching import merging
from edge.modelserver.status import ServingError


@given(sizes=st.lists(st.integers(0, 4), min_size=1, max_size=5), extra=st.integers(0, 3))
def test_each_call_gets_its_own_rows(sizes: list[int], extra: int) -> None:
    """Splitting reverses merging and drops the padding."""
    if not sizes[-1]:
        extra = 0  # the padding repeats a row of the last call
    start = np.cumsum([0, *sizes])
    calls = [{"x": np.arange(a, b)} for a, b in itertools.pairwise(start.tolist())]
    whole = merging.merge(calls, padding=extra, pad_variable_length=False)
    assert len(whole["x"]) == sum(sizes) + extra
    got = merging.split([whole["x"], whole["x"] * 2], sizes, padding=extra)
    for call, (same, double) in zip(calls, got, strict=True):
        assert np.array_equal(same, call["x"])
        assert np.array_equal(double, call["x"] * 2)


@pytest.mark.parametrize(("size", "expected"), [(1, 1), (2, 0), (3, 5), (8, 0)])
def test_padding_reaches_the_next_allowed_size(size: int, expected: int) -> None:
    """Padding fills up to the next allowed size; without allowed sizes there is no padding."""
    assert merging.padding_rows(size, (2, 8)) == expected
    assert merging.padding_rows(size, ()) == 0


def test_padding_repeats_a_valid_row() -> None:
    """The padding is the first row of the last call, which is a valid input."""
    calls = [{"x": np.array([1, 2])}, {"x": np.array([3, 4])}]
    whole = merging.merge(calls, padding=2, pad_variable_length=False)
    assert whole["x"].tolist() == [1, 2, 3, 4, 3, 3]


def test_different_shapes_are_refused_or_padded() -> None:
    """Inputs that differ after the first dimension are refused, or padded to the largest with the option."""
    calls = [{"x": np.array([[1, 2]])}, {"x": np.array([[3, 4, 5]])}]
    with pytest.raises(ServingError, match="different shapes and padding is turned off") as error:
        merging.merge(calls, padding=0, pad_variable_length=False)
    assert error.value.code.name == "FAILED_PRECONDITION"
    padded = merging.merge(calls, padding=0, pad_variable_length=True)
    assert padded["x"].tolist() == [[1, 2, 1], [3, 4, 5]]


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "Batching Run() must have at least one input tensor"),
        ({"x": np.array(1)}, "Batching Run() input tensors must have at least one dimension"),
        (
            {"x": np.zeros(1), "y": np.zeros(2)},
            "Batching Run() input tensors must have equal 0th-dimension size",
        ),
    ],
)
def test_rows_need_a_common_first_dimension(feeds: Any, message: str) -> None:
    """A call without inputs, with a scalar or with different sizes is refused."""
    with pytest.raises(ServingError) as error:
        merging.count_rows(feeds)
    assert error.value.message == message


@pytest.mark.parametrize("output", [np.array(1.0), np.zeros(3)])
def test_outputs_need_one_row_per_input_row(output: Any) -> None:
    """A model whose output is not a batch cannot be served in batches."""
    with pytest.raises(ServingError, match="Batched output tensor"):
        merging.split([output], [1, 1], padding=0)
