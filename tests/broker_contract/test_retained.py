"""Retained messages and last wills: how status, policy and releases reach a client that connects later."""


def test_a_new_subscription_gets_the_last_retained_message(peers, topic):
    """Marked as retained, on any node; a subscription that exists gets it live, not marked."""
    sender, there = peers("sender"), peers("there", at=1)
    there.subscribe(topic)
    sender.publish(topic, b"1", b"2", retain=True)
    live = [there.next() for _ in range(2)]
    assert [(message.payload, message.retain) for message in live] == [(b"1", 0), (b"2", 0)]
    later = peers("later", at=2)
    later.subscribe(topic)
    message = later.next()
    assert (message.payload, message.retain) == (b"2", 1)


def test_a_wildcard_gets_the_retained_messages_of_all_its_topics(peers, topic):
    """A console and a rollout learn the status of every node that way."""
    names = [f"{topic}/{node}/edge" for node in "abc"]
    sender = peers("sender")
    for name in names:
        sender.publish(name, name.encode(), retain=True)
    later = peers("later", at=2)
    later.subscribe(f"{topic}/+/edge")
    assert set(later.take(3)) == {name.encode() for name in names}
    for name in names:
        sender.publish(name, b"", retain=True)


def test_subscribing_again_delivers_the_retained_message_again(peers, topic):
    """A client subscribes with each connection, to learn the present release, also in a kept session."""
    peers("sender").publish(topic, b"release", retain=True)
    client = peers("client", at=1, durable=True)
    for _ in range(2):
        client.subscribe(topic)
        assert client.take(1) == [b"release"]
        client.disconnect()
        client.connect()


def test_an_empty_retained_message_removes_the_retained_one(peers, topic):
    """It arrives live, and a later subscription gets nothing retained."""
    sender, there = peers("sender"), peers("there", at=1)
    there.subscribe(topic)
    sender.publish(topic, b"1", b"", retain=True)
    assert there.take(2) == [b"1", b""]
    later = peers("later", at=2)
    later.subscribe(topic)
    sender.publish(topic, b"end")
    assert later.take(1) == [b"end"]


def test_a_lost_connection_publishes_the_last_will(peers, topic):
    """At once to subscribers, and retained for later ones."""
    watcher = peers("watcher", at=1)
    watcher.subscribe(topic)
    peers("mortal", will=topic).drop()
    assert watcher.take(1) == [b"will"]
    later = peers("later", at=2)
    later.subscribe(topic)
    message = later.next()
    assert (message.payload, message.retain) == (b"will", 1)


def test_a_disconnect_publishes_no_will(peers, topic):
    """A client that says goodbye has published `offline` itself."""
    watcher, sender = peers("watcher", at=1), peers("sender")
    watcher.subscribe(topic)
    peers("mortal", will=topic).disconnect()
    sender.publish(topic, b"end")
    assert watcher.take(1) == [b"end"]
