from bus.metrics import Counters
from bus.mqtt.presence import Presence
from schemas.codec import encode
from schemas.topics import STATUS


def test_a_component_is_online_when_every_part_works_again():
    """Troubles of several parts stand side by side, and one that ends does not hide another."""
    presence = Presence("edge-1", "edge")
    assert presence.degrade("predict", "the model server is away")
    assert presence.degrade("outbox", "the disk is full")
    assert not presence.degrade("outbox", "the disk is full")
    assert presence.recover("predict") is not None
    status = presence.status(Counters())
    assert (status.state, status.reason) == ("degraded", "the disk is full")
    assert presence.recover("outbox") is not None
    assert presence.recover("camera") is None
    assert (presence.status(Counters()).state, presence.trouble()) == ("online", None)


def test_the_last_word_is_offline_and_says_why():
    """A will written while all is well still says `offline`, and does not count as a report of this run."""
    presence = Presence("edge-1", "edge")
    last = presence.status(Counters(), offline="the connection broke")
    assert (last.state, last.reason) == ("offline", "the connection broke")
    assert not presence.is_own(encode(STATUS, last))
    assert presence.is_own(encode(STATUS, presence.status(Counters())))


def test_a_long_reason_is_cut_to_what_the_contract_takes():
    """G7: whatever an error says, the Status stays valid."""
    presence = Presence("edge-1", "edge")
    presence.degrade("predict", "x" * 5000)
    assert presence.is_own(encode(STATUS, presence.status(Counters())))
