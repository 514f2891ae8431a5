"""Merging calls and splitting what comes back."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.modelserver import merging
from edge.modelserver.status import ServingError


@given(sizes=st.lists(st.integers(0, 4), min_size=1, max_size=5), extra=st.integers(0, 3))
def test_each_call_gets_back_its_own_rows(sizes: list[int], extra: int) -> None:
    """What was merged is split the same way, without the padding."""
    if not sizes[-1]:
        extra = 0  # the padding repeats a row of the last call
    start = np.cumsum([0, *sizes])
    calls = [{"x": np.arange(a, b)} for a, b in itertools.pairwise(start.tolist())]
    whole = merging.merged(calls, padding_rows=extra, pad_variable_length=False)
    assert len(whole["x"]) == sum(sizes) + extra
    got = merging.split([whole["x"], whole["x"] * 2], sizes, padding_rows=extra)
    for call, (same, double) in zip(calls, got, strict=True):
        assert np.array_equal(same, call["x"])
        assert np.array_equal(double, call["x"] * 2)


@pytest.mark.parametrize(("size", "expected"), [(1, 1), (2, 0), (3, 5), (8, 0)])
def test_a_batch_is_padded_up_to_an_allowed_size(size: int, expected: int) -> None:
    """The padding fills up to the next allowed size; without allowed sizes there is none."""
    assert merging.padding(size, (2, 8)) == expected
    assert merging.padding(size, ()) == 0


def test_padding_rows_repeat_a_row_that_is_good() -> None:
    """The padding is the first row of the last call, which is a valid input."""
    calls = [{"x": np.array([1, 2])}, {"x": np.array([3, 4])}]
    whole = merging.merged(calls, padding_rows=2, pad_variable_length=False)
    assert whole["x"].tolist() == [1, 2, 3, 4, 3, 3]


def test_different_shapes_are_refused_or_padded() -> None:
    """Inputs that differ beyond the first dimension fail, unless they are to be padded to the largest."""
    calls = [{"x": np.array([[1, 2]])}, {"x": np.array([[3, 4, 5]])}]
    with pytest.raises(ServingError, match="different shapes and padding is turned off") as error:
        merging.merged(calls, padding_rows=0, pad_variable_length=False)
    assert error.value.code.name == "FAILED_PRECONDITION"
    padded = merging.merged(calls, padding_rows=0, pad_variable_length=True)
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
def test_rows_need_a_first_dimension_of_one_size(feeds: Any, message: str) -> None:
    """A call whose rows cannot be told is refused."""
    with pytest.raises(ServingError) as error:
        merging.rows(feeds)
    assert error.value.message == message


@pytest.mark.parametrize("output", [np.array(1.0), np.zeros(3)])
def test_outputs_need_a_row_per_row_of_input(output: Any) -> None:
    """A model whose output is no batch cannot be served in batches."""
    with pytest.raises(ServingError, match="Batched output tensor"):
        merging.split([output], [1, 1], padding_rows=0)
