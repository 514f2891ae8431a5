"""G5: each identity, topic and direction, on a real broker with real certificates."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest

from bus.broker.mosquitto_conf import Access
from bus.broker.process import BrokerProcess
from bus.config import Tls
from bus.security import acl
from schemas.errors import TopicError
from schemas.topics import FEEDBACK, RELEASE, STATUS, TOPICS
from tests.sites import Client, authority, files, free_ports, issue, provision, wait_until

ROOT = Path(__file__).resolve().parents[3]

# Written by hand, not derived from bus/security/acl.py, so that a mistake there is noticed.
HANDLERS = "status/{0}/edge event/{0}/edge status/{0}/edge-2 event/{0}/edge-2"
EDGE_READS = "photo/{0}/* feedback/{0}/* receipt/{0} policy/{0} release/{0} forget/{0} status/{0}/*"
OWN = "photo/{0} feedback/{0} status/{0} event/{0}", "result/{0} command/{0} status/{0}"
ALLOWED = {
    "edge-1.pi-1": tuple(text.format("edge-1/pi-1") for text in OWN),
    "edge-1.pi-2": tuple(text.format("edge-1/pi-2") for text in OWN),
    "edge-2.pi-1": tuple(text.format("edge-2/pi-1") for text in OWN),
    "edge-1.edge": (
        "result/edge-1/* sample/edge-1 status/edge-1/edge event/edge-1/edge",
        EDGE_READS.format("edge-1"),
    ),
    "edge-1.edge-2": (
        "result/edge-1/* sample/edge-1 status/edge-1/edge-2 event/edge-1/edge-2",
        EDGE_READS.format("edge-1"),
    ),
    "edge-2.edge": (
        "result/edge-2/* sample/edge-2 status/edge-2/edge event/edge-2/edge",
        EDGE_READS.format("edge-2"),
    ),
    "edge-1.homeassistant": ("command/edge-1/*", "status/edge-1/*"),
    "edge-1": (
        "sample/edge-1 feedback/edge-1/* " + HANDLERS.format("edge-1"),
        "receipt/edge-1 policy/edge-1 release/edge-1 forget/edge-1 command/edge-1/*",
    ),
    "edge-2": (
        "sample/edge-2 feedback/edge-2/* " + HANDLERS.format("edge-2"),
        "receipt/edge-2 policy/edge-2 release/edge-2 forget/edge-2 command/edge-2/*",
    ),
    "cloud.collector": (
        "receipt/* status/cloud/collector event/cloud/collector",
        "sample/* feedback/* status/cloud/collector",
    ),
    "cloud.collector-2": (
        "receipt/* status/cloud/collector-2 event/cloud/collector-2",
        "sample/* feedback/* status/cloud/collector-2",
    ),
    "cloud.trainer": ("status/cloud/trainer event/cloud/trainer", "status/cloud/trainer"),
    "cloud.notify": ("status/cloud/notify event/cloud/notify", "status/* event/*"),
    "cloud.rollout": (
        "policy/* release/* forget/* status/* event/cloud/rollout",
        "policy/* release/* forget/* status/* event/* steering/cloud/rollout",
    ),
    "cloud.gateway": (
        "sample/* feedback/* status/*/edge event/*/edge status/cloud/gateway event/cloud/gateway",
        "receipt/* policy/* release/* forget/* command/* status/cloud/gateway event/cloud/gateway",
    ),
    "cloud.console": (
        "feedback/cloud/operator policy/* forget/* steering/cloud/* status/cloud/console event/cloud/console",
        "photo/* result/* status/* event/* policy/* release/* forget/* steering/cloud/*",
    ),
    "cloud.operator": ("photo/* feedback/* command/* event/cloud/operator steering/cloud/*", "*"),
}
NODES = ("edge-1", "edge-2", "cloud")
COMPONENTS = ("collector", "collector-2", "trainer", "rollout", "gateway", "console", "notify", "operator")
NAMES = ("pi-1", "pi-2", "edge", "edge-2", *COMPONENTS)


def every_topic() -> list[str]:
    """Return all topics with the names of all nodes, devices and components."""
    return [
        topic.name(**dict(zip(topic.names, (node, name), strict=False)))
        for topic in TOPICS
        for node in NODES
        for name in (NAMES if len(topic.names) == 2 else NAMES[:1])
    ]


def allowed(who: str, direction: int) -> set[str]:
    """Return the topics that an identity may write (0) or read (1)."""
    patterns = [f"gleaner/v1/{pattern}" for pattern in ALLOWED[who][direction].split()]
    return {topic for topic in every_topic() if any(fnmatch(topic, pattern) for pattern in patterns)}


def refusals(direction: int) -> int:
    """Return the number of pairs of identity and topic that are not allowed."""
    return sum(len(every_topic()) - len(allowed(who, direction)) for who in ALLOWED)


@dataclass
class Secured:
    """A broker for all identities of a site, and a witness with all permissions."""

    port: int
    identities: dict[str, tuple[int, Tls]]
    witness: Tls

    def client(self, who: str, **options: object) -> Client:
        port, tls = self.identities[who]
        return Client(port, tls, client_id=who, **options)  # type: ignore[arg-type]  # options of Client


@pytest.fixture(scope="module")
def secured(tmp_path_factory, mosquitto) -> Iterator[Secured]:
    site = tmp_path_factory.mktemp("site")
    provision(site, "--cloud", "127.0.0.1", "--edge", "edge-1", "--devices", "pi-1,pi-2", "--edge", "edge-2")
    provision(
        site,
        "--edge",
        "edge-2",
        "--devices",
        "pi-1",
        "--edge",
        "edge-1",
        "--handlers",
        "2",
        "--homeassistant",
    )
    cloud = site / "cloud"
    identities = [
        *(acl.device(*name.split(".")) for name in ("edge-1.pi-1", "edge-1.pi-2", "edge-2.pi-1")),
        *(make(node) for node in NODES[:2] for make in (acl.edge, acl.bridge)),
        acl.edge("edge-1", "edge-2"),
        acl.homeassistant("edge-1"),
        *(acl.component(name) for name in COMPONENTS),
    ]
    acl_file = site / "everybody"
    acl_file.write_text(
        acl.access_list(identities) + "\nuser witness\ntopic readwrite #\ntopic read $SYS/#\n"
    )
    access = Access(files(cloud, "broker"), str(cloud / "operations.pem"), str(acl_file))
    port = free_ports()
    clients = {
        **{name: (port, files(site / "devices" / name, "device")) for name in ALLOWED if ".pi-" in name},
        **{f"{node}.edge": (port, files(site / "edges" / node, "edge")) for node in NODES[:2]},
        **{
            f"edge-1.{name}": (port, files(site / "edges/edge-1", name))
            for name in ("edge-2", "homeassistant")
        },
        **{node: (port, files(site / "edges" / node, "bridge")) for node in NODES[:2]},
        **{f"cloud.{name}": (port + 1, files(cloud, name)) for name in COMPONENTS[:-1]},
        "cloud.operator": (port + 1, files(site / "operator", "operator")),
    }
    broker = BrokerProcess(site / "mosquitto", port=port, program=mosquitto, access=access)
    broker.start()
    yield Secured(port, clients, issue(cloud, authority(site), "witness"))
    broker.stop()


@pytest.mark.parametrize("protocol", [mqtt.MQTTv311, mqtt.MQTTv5], ids=["3.1.1", "5"])
def test_g5_identities_write_only_allowed_topics(secured, protocol):
    """If every identity publishes on every topic, exactly the allowed messages are delivered."""
    topics = every_topic()
    with Client(secured.port, secured.witness, protocol=protocol) as witness:
        witness.subscribe("#")
        for who in ALLOWED:
            with secured.client(who, protocol=protocol) as client:
                client.publish(*topics, payload=who)
        witness.publish("gleaner/end", payload="end")
        wait_until(lambda: witness.got("end"))
        assert {who: witness.got(who) for who in ALLOWED} == {who: allowed(who, 0) for who in ALLOWED}
    assert refusals(0) == 4187  # of 17 x 267


@pytest.mark.parametrize("protocol", [mqtt.MQTTv311, mqtt.MQTTv5], ids=["3.1.1", "5"])
def test_g5_identities_read_only_allowed_topics(secured, protocol):
    """If every identity subscribes to everything, it receives exactly the allowed topics, retained or not."""
    topics = every_topic()
    wildcards = ("#", "gleaner/#", "+/+/+/+/+", "$SYS/#")
    with ExitStack() as stack:
        witness = stack.enter_context(Client(secured.port, secured.witness, protocol=protocol))
        witness.publish(*topics, payload="kept", retain=True)
        readers = {who: stack.enter_context(secured.client(who, protocol=protocol)) for who in ALLOWED}
        for who, reader in readers.items():
            reader.subscribe(*wildcards, *topics, f"$share/of-{who}/gleaner/v1/#")
        witness.publish(*topics, payload="live")
        witness.publish(*(min(allowed(who, 1)) for who in ALLOWED), payload="end")
        for reader in readers.values():
            wait_until(lambda reader=reader: reader.got("end"))
        for payload in ("kept", "live"):
            got = {who: reader.got(payload) for who, reader in readers.items()}
            assert got == {who: allowed(who, 1) for who in ALLOWED}
        statistics = {
            who: topics
            for who, reader in readers.items()
            if (topics := {topic for topic, _ in reader.received if topic.startswith("$")})
        }
        assert len(statistics.pop("cloud.operator")) > 1
        dropped = {"$SYS/broker/publish/messages/dropped"}  # edges and collectors measure it
        assert statistics == dict.fromkeys(
            ("edge-1.edge", "edge-1.edge-2", "edge-2.edge", "cloud.collector", "cloud.collector-2"), dropped
        )
    assert refusals(1) == 3649  # of 17 x 267


def test_g5_a_last_will_needs_the_permission_to_write(secured):
    """The broker does not publish a will on a topic that its client may not write."""
    foreign, own = "gleaner/v1/status/edge-1/pi-2", "gleaner/v1/status/edge-1/pi-1"
    with Client(secured.port, secured.witness) as witness:
        witness.subscribe("gleaner/v1/status/#")
        for topic in (foreign, own):
            client = secured.client("edge-1.pi-1", will=topic)
            assert client.connect()
            client.drop()
        wait_until(lambda: own in witness.got("will"))
        witness.publish("gleaner/v1/status/edge-1/end", payload="end")
        wait_until(lambda: witness.got("end"))
        assert witness.got("will") == {own}


def test_the_documented_table_is_up_to_date():
    """docs/security.md contains the generated table of permissions."""
    assert acl.table() in (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["edge", "collector-2", "operator", "bridge", "Pi", "a.b", "", "x" * 63])
def test_invalid_and_reserved_device_names_are_errors(name):
    """A reserved name, a name that is not a DNS label, and one that is too long raise TopicError."""
    with pytest.raises(TopicError):
        acl.device("edge-1", name)


def test_common_names_are_unique():
    """A dot separates node and name, and neither may contain one or be ambiguous."""
    with pytest.raises(TopicError):
        acl.edge("cloud")
    with pytest.raises(TopicError):
        acl.edge("edge-1.pi-1")
    with pytest.raises(TopicError):
        acl.component("pi-1")


def test_eventbus_and_bridge_have_the_same_topics():
    """EventBus reads what a bridge forwards up for one handler, and writes what it forwards down."""
    bridge, eventbus = acl.bridge("edge-1"), acl.eventbus("edge-1")
    up = [topic for topic in acl.filters(bridge, "write") if "/edge-1/edge-" not in topic]
    assert list(acl.filters(eventbus, "read")) == up
    assert set(acl.filters(eventbus, "write")) == {
        *acl.filters(bridge, "read"),
        *up,  # probes of the Rules
    }


def test_who_may_write_a_topic_of_every_node_is_named():
    """The hint of a refused message names the certificate that may; the gateway only forwards."""
    assert acl.writers(RELEASE) == ["rollout"]
    assert acl.writers(FEEDBACK) == ["operator"]
    assert acl.writers(STATUS) == ["rollout"]
