"""Decide which device loses a photo when the bound shared by all devices is exceeded."""

from collections.abc import Mapping


def device_with_most(shares: Mapping[str, int], newcomer: str) -> str:
    """Return the device with the largest share of the bounded quantity.

    At a tie it is the newcomer: no device loses anything to one that has as much.

    Args:
        shares: Items or bytes, by device; the newcomer's include what has just come.
        newcomer: The device that has sent something last.
    """
    return max(shares, key=lambda device: (shares[device], device == newcomer))
