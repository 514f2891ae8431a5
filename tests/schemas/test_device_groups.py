"""Which group a device belongs to."""

import random

import pytest

from schemas.groups.membership import group_of

GROUPS = {
    "meter-*": "meters",
    "meter-old-?": "old-meters",
    "meter-7": "seven",
    "*-7": "sevens",
    "door*": "*",
}
CASES = [
    ("meter-1", "meters"),
    ("meter-7", "seven"),  # its name goes before every pattern
    ("meter-old-2", "old-meters"),  # more letters are given
    ("meter-old-22", "meters"),
    ("meter-old-7", "old-meters"),
    ("water-7", "sevens"),
    ("door-2", "edge-1.door-2"),  # of its own
    ("cat-flap", ""),
]


@pytest.mark.parametrize(("device", "expected"), CASES)
def test_the_most_specific_pattern_counts_whatever_the_order(device, expected):
    """A map on the wire has no order."""
    for seed in range(6):
        order = random.Random(seed).sample(sorted(GROUPS), len(GROUPS))
        assert group_of({pattern: GROUPS[pattern] for pattern in order}, "edge-1", device) == expected


def test_without_groups_no_device_has_one():
    """So nothing changes for an installation without groups."""
    assert group_of({}, "edge-1", "meter-1") == ""
