import random

from hypothesis import given, settings
from hypothesis import strategies as st

from bus.config import OutboxLimits
from bus.outbox.schedule import Entry, Schedule

LIMITS = OutboxLimits(window=8, backlog_share=0.25, live_s=60, resend_first_s=5, resend_cap_s=40)


def schedule(limits: OutboxLimits = LIMITS) -> Schedule:
    return Schedule(limits, random.Random(7))


def entry(name: str, created_at: float = 0.0) -> Entry:
    return Entry(name, "topic", 1, created_at)


def ids(entries: list[Entry]) -> list[str]:
    return [sent.message_id for sent in entries]


def test_no_more_than_the_window_is_sent():
    """The window bounds what is unanswered; an answer makes room for the next."""
    waiting = schedule()
    for number in range(20):
        waiting.add(entry(str(number)), now=0)
    assert ids(waiting.take(0)) == [str(number) for number in range(8)]
    assert waiting.take(0) == []
    waiting.remove("3")
    assert ids(waiting.take(0)) == ["8"]


def test_what_is_unanswered_is_sent_again_later_and_later():
    """Without an answer the same message comes again, with growing waits up to the cap."""
    waiting = schedule()
    waiting.add(entry("a"), now=0)
    now, waits = 0.0, []
    for _ in range(8):
        assert ids(waiting.take(now)) == ["a"]
        due = waiting.next_due()
        assert due is not None
        assert waiting.take((now + due) / 2) == []
        waits.append(due - now)
        now = due
    assert 2.5 <= waits[0] <= 5
    assert all(20 <= wait <= 40 for wait in waits[4:])


def test_an_answer_is_awaited_from_when_the_message_left():
    """A message that waited for its turn after `take` is not due before its answer had time to come."""
    waiting = schedule()
    waiting.add(entry("a"), now=0)
    (taken,) = waiting.take(0)
    waiting.left(taken, 4)
    due = waiting.next_due()
    assert due is not None
    assert 6.5 <= due <= 9
    waiting.remove("a")
    waiting.left(taken, 10)
    assert waiting.next_due() is None


def test_live_goes_before_backlog():
    """After an outage, old messages take their share of the window and live ones the rest."""
    waiting = schedule()
    for number in range(20):
        waiting.add(entry(f"old{number}", created_at=-1000), now=0)
    for number in range(20):
        waiting.add(entry(f"new{number}"), now=0)
    sent = ids(waiting.take(0))
    assert sum(name.startswith("old") for name in sent) <= 2
    assert sum(name.startswith("new") for name in sent) >= 6


def test_backlog_is_never_starved():
    """However many live messages come, an old one has at least one place."""
    waiting = schedule()
    waiting.add(entry("old", created_at=-1000), now=0)
    for number in range(100):
        waiting.add(entry(str(number)), now=0)
    assert "old" in ids(waiting.take(0))


def test_what_waits_too_long_becomes_backlog():
    """A live message that found no place within its time is backlog from then on."""
    waiting = schedule()
    for number in range(30):
        waiting.add(entry(str(number)), now=0)
    for name in ids(waiting.take(0)):
        waiting.remove(name)
    assert all(sent.backlog for sent in waiting.take(100))
    assert waiting.unanswered == 2


def test_a_new_connection_hurries_what_is_unanswered():
    """After a reconnect nobody waits for a timer that was set for the old connection."""
    waiting = schedule()
    waiting.add(entry("a"), now=0)
    waiting.take(0)
    waiting.hurry(1.0, spread_s=0.5)
    due = waiting.next_due()
    assert due is not None
    assert 1.0 <= due <= 1.5


def test_a_deferred_answer_is_waited_for():
    """Who has the message and says so is not asked again before the cap."""
    waiting = schedule()
    waiting.add(entry("a"), now=0)
    waiting.take(0)
    waiting.defer("a", now=1)
    assert waiting.next_due() == 41


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 40), st.floats(-200, 0)),
        st.tuples(st.just("remove"), st.integers(0, 40), st.just(0.0)),
        st.tuples(st.just("wait"), st.integers(0, 1), st.floats(0, 50)),
        st.tuples(st.just("hurry"), st.integers(0, 1), st.just(0.0)),
    ),
    max_size=80,
)


@given(steps=steps, seed=st.integers())
@settings(deadline=None)
def test_no_order_of_events_breaks_the_bounds(steps, seed):
    """Whatever happens: the window holds, nothing answered is sent again, nothing is forgotten."""
    waiting, now, present = Schedule(LIMITS, random.Random(seed)), 0.0, set()
    for step, number, amount in steps:
        name = str(number)
        if step == "add" and name not in present:
            waiting.add(entry(name, now + amount), now)
            present.add(name)
        elif step == "remove":
            assert (waiting.remove(name) is not None) == (name in present)
            present.discard(name)
        elif step == "hurry":
            waiting.hurry(now)
        else:
            now += amount
        assert set(ids(waiting.take(now))) <= present
        assert waiting.unanswered <= LIMITS.window
        assert len(waiting) == len(present)
        assert not present or waiting.next_due() is not None
