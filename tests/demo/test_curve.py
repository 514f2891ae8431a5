import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from demo.curve import DRAWS, subsets


@given(first=st.integers(1, 20), later=st.integers(0, 40), seed=st.integers(0, 9))
def test_the_first_labels_are_in_every_subset(first: int, later: int, seed: int):
    """From the labels of version 1 to all labels, each subset has the first ones and no duplicates."""
    points = list(subsets(first, later, seed))
    assert [number for number, _ in points] == sorted({number for number, _ in points})
    assert (points[0][0], points[-1][0]) == (first, first + later)
    for number, draws in points:
        assert len(draws) == (1 if number in {first, first + later} else DRAWS)
        for subset in draws:
            assert len(set(subset)) == len(subset) == number
            assert set(range(first)) <= set(subset) <= set(range(first + later))


def test_subsets_depend_on_the_seed():
    """The same seed gives the same subsets, another seed different ones."""

    def middle(seed: int) -> list[list[int]]:
        return [list(map(int, chosen)) for chosen in list(subsets(10, 20, seed))[2][1]]

    assert middle(1) == middle(1)
    assert middle(1) != middle(2)
    assert len({tuple(np.sort(chosen)) for chosen in middle(1)}) > 1
