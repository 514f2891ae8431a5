"""QoS 1, sessions that outlive a connection, redelivery, order, and take-over by client id."""

import pytest

from tests.broker_contract.peer import VERSIONS

PHOTOS_IN_FLIGHT = 257
"""One more than an edge holds: it must arrive, so that the edge can defer it."""


def numbered(count: int, start: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(start, start + count)]


@pytest.mark.parametrize("other", VERSIONS.values(), ids=[f"to {name}" for name in VERSIONS])
def test_a_message_reaches_a_subscriber_at_qos_1(peers, topic, version, other):
    """With any versions of MQTT, and on any nodes."""
    receiver = peers("receiver", at=1, speaks=other)
    receiver.subscribe(f"{topic}/+/x")
    peers("sender").publish(f"{topic}/a/x", b"hello")
    message = receiver.next()
    assert (message.topic, message.payload, message.qos, message.retain) == (f"{topic}/a/x", b"hello", 1, 0)


def test_messages_of_a_sender_arrive_in_order(peers, topic):
    """A thousand of one sender on one topic, each once."""
    receiver = peers("receiver", at=1)
    receiver.subscribe(f"{topic}/#")
    peers("sender").publish(topic, *numbered(1000))
    assert receiver.take(1000) == numbered(1000)


def test_an_absent_client_with_a_session_gets_what_it_missed(peers, topic):
    """All of it, without subscribing again; a clean session misses it."""
    kept, clean = peers("kept", at=1, durable=True), peers("clean", at=1)
    for client in (kept, clean):
        client.subscribe(topic)
        client.disconnect()
    sender = peers("sender")
    sender.publish(topic, *numbered(100))
    kept.connect()
    assert kept.session_present
    assert sorted(kept.take(100)) == sorted(numbered(100))
    clean.connect()
    assert not clean.session_present
    clean.subscribe(topic)
    sender.publish(topic, b"end")
    assert clean.take(1) == [b"end"]


def test_an_absent_client_gets_what_it_missed_in_order(peers, topic):
    """As the sender published it."""
    receiver = peers("receiver", at=1, durable=True)
    receiver.subscribe(topic)
    receiver.disconnect()
    peers("sender").publish(topic, *numbered(100))
    receiver.connect()
    assert receiver.take(100) == numbered(100)


def test_an_unacknowledged_message_is_redelivered(peers, topic):
    """After a lost connection, before newer ones; an acknowledged one is not."""
    again = redelivered(peers, topic)
    assert [message.payload for message in again] == numbered(7, start=5)


def test_a_redelivered_message_is_marked_as_a_duplicate(peers, topic):
    """A message that was never sent before is not."""
    assert [message.dup for message in redelivered(peers, topic)] == [True] * 5 + [False] * 2


def redelivered(peers, topic: str) -> list:
    """Return what arrives after a lost connection: ten were sent, five acknowledged, then two more sent."""
    receiver, sender = peers("receiver", at=1, durable=True), peers("sender")
    receiver.subscribe(topic)
    sender.publish(topic, *numbered(10))
    first = [receiver.next() for _ in range(10)]
    for message in first[:5]:
        receiver.ack(message)
    receiver.subscribe(f"{topic}/other")  # the broker has read the acknowledgements before it answers
    receiver.drop()
    sender.publish(topic, *numbered(2, start=10))
    receiver.connect()
    return [receiver.next() for _ in range(7)]


def test_a_client_may_hold_many_unacknowledged_messages(peers, topic):
    """More than an edge has in flight; then they are redelivered in the same order."""
    receiver = peers("receiver", at=1, durable=True)
    receiver.subscribe(topic)
    peers("sender").publish(topic, *numbered(PHOTOS_IN_FLIGHT))
    assert receiver.take(PHOTOS_IN_FLIGHT, ack=False) == numbered(PHOTOS_IN_FLIGHT)
    receiver.drop()
    receiver.connect()
    assert receiver.take(PHOTOS_IN_FLIGHT) == numbered(PHOTOS_IN_FLIGHT)


def test_a_second_connection_takes_over_the_session(peers, topic):
    """The older one is closed; the session and what was not acknowledged move, also to another node."""
    old, sender = peers("receiver", durable=True), peers("sender", at=2)
    old.subscribe(topic)
    sender.publish(topic, b"0")
    assert old.take(1, ack=False) == [b"0"]
    new = peers("receiver", at=1, durable=True)
    old.wait_closed()
    assert new.session_present
    sender.publish(topic, b"1")
    assert new.take(2) == [b"0", b"1"]


def test_a_clean_start_removes_the_session(peers, topic):
    """Otherwise the queue of a client that was renamed would stay forever."""
    receiver, sender = peers("receiver", at=1, durable=True), peers("sender")
    receiver.subscribe(topic)
    receiver.disconnect()
    sender.publish(topic, b"old")
    again = peers("receiver", at=1)
    assert not again.session_present
    again.subscribe(topic)
    sender.publish(topic, b"new")
    assert again.take(1) == [b"new"]
