"""Bounded maps that forget what was set longest ago."""

from collections import OrderedDict
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def put_newest(kept: OrderedDict[K, V], key: K, value: V, most: int) -> None:
    """Set a key as the newest one; if there are more than `most` keys then, drop the oldest."""
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > most:
        kept.popitem(last=False)
