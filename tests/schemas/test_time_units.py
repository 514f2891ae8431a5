"""Rules of schemas/time_units.py."""

import pytest

from schemas.time_units import wrong_unit

NOW = 1_796_000_000_000
DAY = 86_400_000


@pytest.mark.parametrize(
    ("at_ms", "unit"),
    [
        (NOW, None),
        (NOW - 365 * DAY, None),
        (NOW // 1000, "seconds"),
        (NOW // 1000 + 30, "seconds"),
        (NOW * 1000, "microseconds"),
        (0, None),
        (16 * DAY, None),  # a clock that started in 1970
        (2**53, None),
        (4_070_908_800_000, None),  # 2099
    ],
)
def test_another_unit_is_recognised(at_ms, unit):
    """Only where it gives a time near now, so that a wrong clock is not taken for it."""
    assert wrong_unit(at_ms, NOW) == unit
