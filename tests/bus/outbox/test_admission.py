"""Rules of bus/outbox/admission.py: the age of a message after a restart."""

import time

import pytest

from bus.config import OutboxLimits
from bus.outbox.admission import monotonic_time
from bus.outbox.schedule import Entry, Schedule

LIMITS = OutboxLimits(live_s=60)
DAY_S = 86_400


@pytest.mark.parametrize(
    ("age_s", "late"),
    [(0, False), (30, False), (-30, False), (90, True), (2 * DAY_S, True), (-90, True), (-8 * DAY_S, True)],
)
def test_a_message_of_unknown_age_is_late(age_s, late):
    """After a boot with a clock set back, an old photo is from the future: it must not be sent as live.

    A clock that was set by less than `live_s` changes nothing.
    """
    created_ms = round((time.time() - age_s) * 1000)
    entry = Entry("a", "topic", 1, monotonic_time(created_ms, LIMITS.live_s))
    Schedule(LIMITS).add(entry, time.monotonic())
    assert entry.backlog == late
