"""Rules of bus/newest.py: which key a bounded map forgets."""

from collections import OrderedDict

from hypothesis import given
from hypothesis import strategies as st

from bus.newest import put_newest


@given(st.lists(st.integers(0, 9)), st.integers(1, 5))
def test_the_keys_that_were_set_last_stay(keys: list[int], most: int) -> None:
    """Setting a key again makes it the newest; beyond the bound the oldest are dropped."""
    kept: OrderedDict[int, int] = OrderedDict()
    for at, key in enumerate(keys):
        put_newest(kept, key, at, most)
    newest = list(dict.fromkeys(reversed(keys)))[:most]
    assert list(reversed(kept)) == newest
    assert all(keys[at] == key and key not in keys[at + 1 :] for key, at in kept.items())
