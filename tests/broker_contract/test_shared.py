"""Shared subscriptions: how several collectors divide the samples."""

from collections import Counter

from tests.broker_contract.test_sessions import numbered

COUNT = 40


def members(peers, topic: str, count: int = 2, **options) -> list:
    """Return members of one group, each on another node."""
    made = [peers(f"member-{number}", at=number, **options) for number in range(count)]
    for member in made:
        member.subscribe(f"$share/collectors/{topic}/+")
    return made


def collected(group, sender, topic: str, count: int) -> list[Counter]:
    """Take messages until all are there, then what else comes before a message to each member alone."""
    taken = [Counter() for _ in group]
    for number, member in enumerate(group):
        member.subscribe(f"{topic}/end/{number}")
    while sum(map(Counter.total, taken)) < count:
        number = next_to_take(group)
        message = group[number].next()
        group[number].ack(message)
        taken[number][message.payload] += 1
    for number, member in enumerate(group):
        sender.publish(f"{topic}/end/{number}", b"end")
        while (message := member.next()).payload != b"end":
            taken[number][message.payload] += 1
    return taken


def next_to_take(group) -> int:
    """Return a member with a message; the first if none has one yet, which then waits."""
    return next((number for number, member in enumerate(group) if member.messages.qsize()), 0)


def test_each_message_reaches_one_member(peers, topic):
    """Each exactly once over all members, and every member gets some."""
    group, sender = members(peers, topic), peers("sender", at=2)
    sender.publish(f"{topic}/sample", *numbered(COUNT))
    taken = collected(group, sender, topic, COUNT)
    assert sum(taken, Counter()) == Counter(numbered(COUNT))
    assert all(taken)


def test_a_subscription_beside_the_group_gets_all(peers, topic):
    """A console that looks on takes nothing away from the collectors."""
    (member,), sender, console = members(peers, topic, 1), peers("sender", at=2), peers("console", at=1)
    console.subscribe(f"{topic}/#")
    sender.publish(f"{topic}/sample", *numbered(COUNT))
    assert console.take(COUNT) == numbered(COUNT)
    assert Counter(member.take(COUNT)) == Counter(numbered(COUNT))


def test_a_member_that_leaves_takes_no_further_messages(peers, topic):
    """All later messages reach those who stay: a collector's session ends with its connection."""
    (stays, leaves), sender = members(peers, topic), peers("sender", at=2)
    leaves.disconnect()
    peers("member-1", at=1).disconnect()  # accepted only after the broker has read the DISCONNECT
    sender.publish(f"{topic}/sample", *numbered(COUNT))
    assert Counter(stays.take(COUNT)) == Counter(numbered(COUNT))
