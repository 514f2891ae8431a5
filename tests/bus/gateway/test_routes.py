from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from bus.broker.mosquitto_conf import uplink_filters
from bus.gateway.routes import find_route, node_routes
from schemas.topics import NAME, TOPICS, find

names = st.from_regex(NAME, fullmatch=True)


@given(node=names, devices=st.lists(names, max_size=3))
def test_path_and_route_are_inverse(node, devices):
    """Parsing the path of a route gives the route, and its topic name parses to its topic and names."""
    for route in node_routes(node, devices):
        _, up, *parts = route.path.split("/")
        assert (up, find_route(*parts)) == ("up", route)
        assert find(route.name) == (route.topic, route.names)


def test_routes_and_bridge_forward_the_same_topics():
    """EventBus forwards the topics of a bridge, without wildcards and only for the first handler."""
    bridged = {topic for topic in uplink_filters("edge-1") if "/edge-1/edge-" not in topic}
    assert {route.name.replace("/pi-1", "/+") for route in node_routes("edge-1", ["pi-1"])} == bridged


def test_g5_no_path_leads_to_another_topic():
    """G5: only the topics from edge to cloud have a route; wildcards and invalid names have none."""
    nodes = ("edge-1", "+", "", "EDGE", "a" * 64)
    kinds = (*(topic.kind for topic in TOPICS), "", "..", "Sample", "sample\n")
    devices = (None, "pi-1", "+", "#", "")
    found = {parts for parts in product(nodes, kinds, devices) if find_route(*parts) is not None}
    of_edge = {("edge-1", kind, None) for kind in ("sample", "status", "event")}
    assert found == of_edge | {("edge-1", "feedback", "pi-1")}
