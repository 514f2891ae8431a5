from bus.notifications.presence_watch import PresenceWatch
from schemas.messages import Status


def status(node="edge-1", name="edge", state="online", reason=None) -> Status:
    return Status(
        node=node, name=name, state=state, at_ms=0, since_ms=0, software="0", run_id="0", reason=reason
    )


def texts(watch: PresenceWatch, now: float) -> list[str]:
    return [news.text for news in watch.newly_silent(now)]


def test_a_node_is_silent_once_and_then_back():
    """Silent after `silent_s` without a Status; reported once, and again when it is back."""
    watch = PresenceWatch(300)
    assert watch.take(status(), 0) is None
    assert watch.next_check_at() == 300
    assert texts(watch, 299) == []
    assert texts(watch, 300) == ["edge-1.edge is silent for 5 min"]
    assert (texts(watch, 900), watch.next_check_at()) == ([], None)
    assert watch.take(status(), 960).text == "edge-1.edge is back after 16 min"
    assert texts(watch, 1000) == []


def test_an_offline_node_is_notified_with_its_reason():
    """Its time runs from the last sign of life; a short outage is not reported."""
    watch = PresenceWatch(300)
    watch.take(status(), 0)
    watch.take(status(state="offline", reason="the connection broke"), 10)
    watch.take(status(), 20)
    watch.take(status(state="offline", reason="the connection broke"), 200)
    assert texts(watch, 319) == []
    assert texts(watch, 320) == ["edge-1.edge is silent for 5 min (the connection broke)"]


def test_devices_are_not_watched():
    """Only handlers of nodes, and components of the cloud."""
    watch = PresenceWatch(60)
    watch.take(status(name="pi-1"), 0)
    watch.take(status(node="cloud", name="collector"), 0)
    assert texts(watch, 60) == ["cloud.collector is silent for 60 s"]


def test_our_own_outage_is_nobodys_silence():
    """After a reconnection everyone has the whole time again, but what was silent before stays so."""
    watch = PresenceWatch(60)
    watch.take(status(), 0)
    watch.take(status(node="edge-2"), 30)
    assert texts(watch, 60) == ["edge-1.edge is silent for 60 s"]
    watch.connected(200)
    assert texts(watch, 259) == []
    assert texts(watch, 260) == ["edge-2.edge is silent for 60 s"]


def test_a_retired_node_is_forgotten():
    """Its cleared Status ends the watch."""
    watch = PresenceWatch(60)
    watch.take(status(), 0)
    watch.forget("edge-1", "edge")
    assert (texts(watch, 100), watch.next_check_at()) == ([], None)
