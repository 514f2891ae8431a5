"""The arithmetic of fleets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.fleet import fairness


@given(st.lists(st.floats(0.1, 1000), min_size=1, max_size=50))
def test_fairness_is_between_1_over_n_and_1(shares: list[float]) -> None:
    """Jain's index is 1 for equal shares, 1 / N if one device gets everything, and otherwise between."""
    count = len(shares)
    assert 1 / count - 1e-9 <= fairness(shares) <= 1 + 1e-9
    assert fairness([shares[0]] * count) == pytest.approx(1)
    assert fairness([shares[0]] + [0.0] * (count - 1)) == pytest.approx(1 / count)
    assert fairness([0.0] * count) == 0
