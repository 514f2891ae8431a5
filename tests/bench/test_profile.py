"""The table of the hottest functions."""

from bench.profile import hottest, table


def test_a_function_counts_once_in_a_stack_that_it_is_in_twice() -> None:
    """Recursion does not raise a share above the whole; lines of one function are one."""
    stacks = ["run (a.py:1);step (a.py:5);step (a.py:6) 3", "run (a.py:2);wait (b.py:9) 1"]
    assert hottest(stacks) == [("step (a.py)", 75.0, 75.0), ("wait (b.py)", 25.0, 25.0)]
    assert "| `step (a.py)` | 75.0 % | 75.0 % |" in table("handler", stacks)
