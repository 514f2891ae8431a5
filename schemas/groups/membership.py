"""Groups of devices: which group of a policy a device belongs to. Plain functions, without I/O."""

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase

NO_GROUP = ""
"""Group of a device that no pattern names: the shared head answers its photos."""
EACH = "*"
"""As a group in a policy: each device of the pattern is its own group."""

PATTERN = re.compile(r"[a-z0-9*?]([a-z0-9*?-]{0,61}[a-z0-9*?])?")
"""A device name in which `*` stands for any characters and `?` for one."""
_WILD = "*?"


def own_group(node: str, device: str) -> str:
    """Return the name of a device's own group; names have no dots, so that no other group has it."""
    return f"{node}.{device}"


def group_of(groups: Mapping[str, str], node: str, device: str) -> str:
    """Return the group of a device.

    Args:
        groups: Of the node's policy, by device name or pattern.
        node: Of the device.
        device: Its name.

    Returns:
        The most specific pattern decides: the name itself, else the pattern with most other characters than
        wildcards, among these the one with fewest wildcards. Empty if none matches.
    """
    found = device if device in groups else min(_matching(groups, device), key=_order, default=None)
    group = NO_GROUP if found is None else groups[found]
    return own_group(node, device) if group == EACH else group


def _matching(groups: Mapping[str, str], device: str) -> list[str]:
    return [pattern for pattern in groups if fnmatchcase(device, pattern)]


def _order(pattern: str) -> tuple[int, int, str]:
    """Return what sorts the more specific pattern first; the order of a map on the wire means nothing."""
    wild = sum(character in _WILD for character in pattern)
    return wild - len(pattern), wild, pattern
