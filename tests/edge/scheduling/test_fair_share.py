"""Rules of edge/scheduling/fair_share.py: whose photos are dropped."""

import pytest

from edge.scheduling.fair_share import device_with_most


@pytest.mark.parametrize(
    ("shares", "found"),
    [
        ({"busy": 5, "calm": 2, "new": 1}, "busy"),
        ({"busy": 5, "new": 6}, "new"),
        ({"new": 5, "busy": 5}, "new"),
        ({"busy": 5, "new": 5}, "new"),
        ({"one": 5, "other": 5, "new": 1}, "one"),
        ({"new": 1}, "new"),
    ],
)
def test_the_largest_share_gives_way_and_at_a_tie_the_newcomer(shares: dict[str, int], found: str) -> None:
    """So a device that sends much loses its own, and none loses to one that has as much."""
    assert device_with_most(shares, "new") == found
