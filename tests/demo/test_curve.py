import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from demo.curve import DRAWS, choices


@given(first=st.integers(1, 20), later=st.integers(0, 40), seed=st.integers(0, 9))
def test_the_first_labels_are_in_every_choice(first: int, later: int, seed: int):
    """From version 1's labels to all of them: each choice has all first ones, and no label twice."""
    points = list(choices(first, later, seed))
    assert [number for number, _ in points] == sorted({number for number, _ in points})
    assert (points[0][0], points[-1][0]) == (first, first + later)
    for number, draws in points:
        assert len(draws) == (1 if number in {first, first + later} else DRAWS)
        for chosen in draws:
            assert len(set(chosen)) == len(chosen) == number
            assert set(range(first)) <= set(chosen) <= set(range(first + later))


def test_choices_follow_the_seed():
    """One seed chooses the same labels again, another one others."""

    def middle(seed: int) -> list[list[int]]:
        return [list(map(int, chosen)) for chosen in list(choices(10, 20, seed))[2][1]]

    assert middle(1) == middle(1)
    assert middle(1) != middle(2)
    assert len({tuple(np.sort(chosen)) for chosen in middle(1)}) > 1
