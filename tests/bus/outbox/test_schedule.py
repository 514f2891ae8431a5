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


def test_at_most_the_window_is_in_flight():
    """The window limits unanswered messages; an answer lets the next one be sent."""
    outbox = schedule()
    for number in range(20):
        outbox.add(entry(str(number)), now=0)
    assert ids(outbox.take_due(0)) == [str(number) for number in range(8)]
    assert outbox.take_due(0) == []
    outbox.remove("3")
    assert ids(outbox.take_due(0)) == ["8"]


def test_an_unanswered_message_is_sent_again_with_backoff():
    """Without an answer a message is due again, after delays that grow up to the cap."""
    outbox = schedule()
    outbox.add(entry("a"), now=0)
    now, waits = 0.0, []
    for _ in range(8):
        assert ids(outbox.take_due(now)) == ["a"]
        due = outbox.next_due()
        assert due is not None
        assert outbox.take_due((now + due) / 2) == []
        waits.append(due - now)
        now = due
    assert 2.5 <= waits[0] <= 5
    assert all(20 <= wait <= 40 for wait in waits[4:])


def test_the_resend_timer_starts_when_the_message_was_sent():
    """A message that was sent some time after `take_due` gets its full delay from then on."""
    outbox = schedule()
    outbox.add(entry("a"), now=0)
    (taken,) = outbox.take_due(0)
    outbox.restart_timer(taken, 4)
    due = outbox.next_due()
    assert due is not None
    assert 6.5 <= due <= 9
    outbox.remove("a")
    outbox.restart_timer(taken, 10)
    assert outbox.next_due() is None


def test_live_messages_are_sent_before_backlog():
    """Backlog gets at most its share of the window, live messages the rest."""
    outbox = schedule()
    for number in range(20):
        outbox.add(entry(f"old{number}", created_at=-1000), now=0)
    for number in range(20):
        outbox.add(entry(f"new{number}"), now=0)
    sent = ids(outbox.take_due(0))
    assert sum(name.startswith("old") for name in sent) <= 2
    assert sum(name.startswith("new") for name in sent) >= 6


def test_backlog_is_never_starved():
    """With any number of live messages, backlog gets at least one place."""
    outbox = schedule()
    outbox.add(entry("old", created_at=-1000), now=0)
    for number in range(100):
        outbox.add(entry(str(number)), now=0)
    assert "old" in ids(outbox.take_due(0))


def test_a_live_message_becomes_backlog_with_age():
    """A live message that is not sent within `live_s` becomes backlog."""
    outbox = schedule()
    for number in range(30):
        outbox.add(entry(str(number)), now=0)
    for name in ids(outbox.take_due(0)):
        outbox.remove(name)
    assert all(sent.backlog for sent in outbox.take_due(100))
    assert outbox.unanswered == 2


def test_a_new_connection_makes_unanswered_messages_due():
    """After a reconnect, all unanswered messages are due soon, regardless of their timers."""
    outbox = schedule()
    outbox.add(entry("a"), now=0)
    outbox.take_due(0)
    outbox.resend_soon(1.0, spread_s=0.5)
    due = outbox.next_due()
    assert due is not None
    assert 1.0 <= due <= 1.5


def test_a_deferred_message_is_not_due_before_the_cap():
    """A message whose receiver deferred it is sent again after `resend_cap_s`."""
    outbox = schedule()
    outbox.add(entry("a"), now=0)
    outbox.take_due(0)
    outbox.defer("a", now=1)
    assert outbox.next_due() == 41


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 40), st.floats(-200, 0)),
        st.tuples(st.just("remove"), st.integers(0, 40), st.just(0.0)),
        st.tuples(st.just("wait"), st.integers(0, 1), st.floats(0, 50)),
        st.tuples(st.just("reconnect"), st.integers(0, 1), st.just(0.0)),
    ),
    max_size=80,
)


@given(steps=steps, seed=st.integers())
@settings(deadline=None)
def test_no_order_of_events_breaks_the_bounds(steps, seed):
    """In any order of events the window holds, and exactly the unanswered messages have timers or wait."""
    outbox, now, present = Schedule(LIMITS, random.Random(seed)), 0.0, set()
    for step, number, amount in steps:
        name = str(number)
        if step == "add" and name not in present:
            outbox.add(entry(name, now + amount), now)
            present.add(name)
        elif step == "remove":
            assert (outbox.remove(name) is not None) == (name in present)
            present.discard(name)
        elif step == "reconnect":
            outbox.resend_soon(now)
        else:
            now += amount
        assert set(ids(outbox.take_due(now))) <= present
        assert outbox.unanswered <= LIMITS.window
        assert len(outbox) == len(present)
        assert not present or outbox.next_due() is not None


def test_a_receiver_without_room_says_when_to_send_again():
    """The delay is short at first and grows up to the usual one, instead of the longest one at once."""
    outbox = schedule()
    outbox.add(entry("a"), now=0)
    now, waits = 0.0, []
    for _ in range(8):
        assert ids(outbox.take_due(now)) == ["a"]
        outbox.defer("a", now, 2.0)
        due = outbox.next_due()
        waits.append(due - now)
        now = due
    assert 1.0 <= waits[0] <= 2.0
    assert all(wait <= 40 for wait in waits)
    assert waits[-1] >= 20.0
