from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from bus.broker.mosquitto_conf import uplink_filters
from bus.gateway.routes import find_route, node_routes
from schemas.topics import NAME, TOPICS, find

names = st.from_regex(NAME, fullmatch=True)


@given(node=names, devices=st.lists(names, max_size=3))
def test_each_topic_has_a_path_and_each_path_its_topic(node, devices):
    """What the Router POSTs to a path is published on the very topic whose Rule has that path."""
    for one in node_routes(node, devices):
        _, up, *parts = one.path.split("/")
        assert (up, find_route(*parts)) == ("up", one)
        found = find(one.name)
        assert found == (one.topic, one.names)


def test_what_crosses_over_the_eventbus_is_what_crosses_over_a_bridge():
    """Both ways carry the same topics, the EventBus without wildcards and without further handlers."""
    bridged = {topic for topic in uplink_filters("edge-1") if "/edge-1/edge-" not in topic}
    assert {one.name.replace("/pi-1", "/+") for one in node_routes("edge-1", ["pi-1"])} == bridged


def test_nothing_else_crosses():
    """G5: no path leads to a topic that does not cross, nor to a wildcard."""
    nodes = ("edge-1", "+", "", "EDGE", "a" * 64)
    kinds = (*(topic.kind for topic in TOPICS), "", "..", "Sample", "sample\n")
    devices = (None, "pi-1", "+", "#", "")
    found = {given for given in product(nodes, kinds, devices) if find_route(*given) is not None}
    own = {("edge-1", kind, None) for kind in ("sample", "status", "event")}
    assert found == own | {("edge-1", "feedback", "pi-1")}
