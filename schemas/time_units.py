"""Recognise a time in another unit than the contract's milliseconds since 1970."""

_MS_PER_UNIT = {"seconds": 1000.0, "microseconds": 0.001}  # nanoseconds exceed every bound of a time
_NEAR_MS = 10 * 365 * 86_400_000


def wrong_unit(at_ms: int, now_ms: int) -> str | None:
    """Return the unit in which a time would be within ten years of now; None if milliseconds are right.

    The milliseconds of a machine whose clock started in 1970 look like seconds from its 17th to its 25th day.

    Args:
        at_ms: The time as it was sent.
        now_ms: Milliseconds since 1970.
    """
    if abs(at_ms - now_ms) <= _NEAR_MS:
        return None
    units = (unit for unit, ms in _MS_PER_UNIT.items() if abs(at_ms * ms - now_ms) <= _NEAR_MS)
    return next(units, None)
