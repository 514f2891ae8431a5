"""The broker's configuration as text for mosquitto 2.0: bounds, access, and the bridge from edge to cloud."""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from bus.config import ConfigError, Tls
from bus.security import acl
from schemas.codec import MAX_PAYLOAD_BYTES

MEMORY_LIMIT_BYTES = 1_000_000_000
QUEUED_BYTES = 128_000_000
# More than the 256 photos that an edge may have in hand, so that even then the next one arrives and is told;
# less than half the 1024 deliveries that a subscription's queue holds, so that none finds it full, not even
# when a new connection brings again what the last one left in it.
_INFLIGHT_MESSAGES = 500
_QUEUED_MESSAGES = 1_000_000


@dataclass(frozen=True, slots=True)
class Access:
    """Who may connect and what they may do: TLS with client certificates, and mosquitto's list of rights.

    A client's name is its certificate's common name. On the port itself its client id is that name too, so
    that nobody can throw out or impersonate another; an identity has one connection there. The cloud's
    components and the operator's tools open several: they come in by the next port, where they choose their
    ids, and which trusts an authority of its own.

    Args:
        tls: Certificate of the authority of devices, edges and bridges; the broker's own certificate and key.
        operations: Certificate of the authority of the cloud's components and the operator.
        rights: The access control list.
    """

    tls: Tls
    operations: str
    rights: str


@dataclass(frozen=True, slots=True)
class Bridge:
    """The link of an edge node's broker to the cloud's.

    Args:
        node: The edge node.
        host: Of the cloud's broker.
        port: Of the cloud's broker.
        tls: The node's own certificate and key; unencrypted if None.
    """

    node: str
    host: str
    port: int
    tls: Tls | None = None


def uplink_filters(node: str) -> tuple[str, ...]:
    """Return the topics that cross from an edge node to the cloud."""
    return acl.filters(acl.bridge(node), "write")


def downlink_filters(node: str) -> tuple[str, ...]:
    """Return the topics that cross from the cloud to an edge node."""
    return acl.filters(acl.bridge(node), "read")


def configuration(
    port: int,
    folder: Path,
    *,
    address: str = "127.0.0.1",
    access: Access | None = None,
    bridge: Bridge | None = None,
    user: str | None = None,
) -> str:
    """Return a configuration; without `access` it lets anybody in and is for loopback only.

    `max_queued_messages` is 1000 by default, above which mosquitto drops QoS 1 messages without a word. With
    0, which should lift it, 2.0.11 closes the connection of whoever publishes something that it refuses: too
    large, or without the right. So it is a number that memory never lets it reach: that is bounded by
    `memory_limit`, and by `max_queued_bytes` for each client that stays away, because every resend to it
    would add a copy. A message dropped there is sent again by the outbox that has no answer yet, and
    `$SYS/broker/publish/messages/dropped` counts it.

    Args:
        port: TCP port.
        folder: For the persistence.
        address: To listen on; all of the machine's if empty.
        access: Certificates and rights.
        bridge: To the cloud's broker, for an edge node.
        user: What it becomes when root starts it; `mosquitto` if None.

    Raises:
        ConfigError: It would let anybody in from elsewhere.
    """
    if access is None and not is_loopback(address):
        raise ConfigError(
            "broker", expected="a loopback address, or access rules (`gleaner provision`)", got=repr(address)
        )
    lines = [
        *(
            _secured(port, address, access)
            if access
            else [f"listener {port} {address}", "allow_anonymous true"]
        ),
        "persistence true",
        f"persistence_location {folder}/",
        "autosave_interval 60",
        f"max_queued_messages {_QUEUED_MESSAGES}",
        f"max_queued_bytes {QUEUED_BYTES}",
        f"max_inflight_messages {_INFLIGHT_MESSAGES}",
        f"memory_limit {MEMORY_LIMIT_BYTES}",
        f"message_size_limit {MAX_PAYLOAD_BYTES}",
        "persistent_client_expiration 7d",
        "set_tcp_nodelay true",
        "sys_interval 2",
        "connection_messages false",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
    ]
    if user:
        lines.append(f"user {user}")
    if bridge:
        lines += _bridged(bridge)
    return "\n".join(lines) + "\n"


def is_loopback(host: str) -> bool:
    """Tell whether a name or address is this machine's own and out of reach from elsewhere."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _secured(port: int, address: str, access: Access) -> Iterator[str]:
    yield from _listener(port, address, access.tls.ca, access.tls)
    yield "use_username_as_clientid true"
    yield from _listener(port + 1, address, access.operations, access.tls)
    yield "allow_anonymous false"
    yield f"acl_file {access.rights}"


def _listener(port: int, address: str, authority: str, own: Tls) -> Iterator[str]:
    yield f"listener {port} {address}".rstrip()
    yield f"cafile {authority}"
    yield f"certfile {own.certificate}"
    yield f"keyfile {own.key}"
    yield "tls_version tlsv1.2"  # or later
    yield "require_certificate true"
    yield "use_identity_as_username true"


def _bridged(bridge: Bridge) -> Iterator[str]:
    yield f"connection {bridge.node}"
    yield f"address {bridge.host}:{bridge.port}"
    yield f"remote_clientid {bridge.node}"
    yield "cleansession false"
    yield "bridge_protocol_version mqttv311"
    yield "notifications true"
    yield "notifications_local_only true"
    yield "keepalive_interval 15"
    yield "restart_timeout 1 10"
    if bridge.tls:
        yield f"bridge_cafile {bridge.tls.ca}"
        yield f"bridge_certfile {bridge.tls.certificate}"
        yield f"bridge_keyfile {bridge.tls.key}"
        yield "bridge_tls_version tlsv1.2"
    for topic in uplink_filters(bridge.node):
        yield f"topic {topic} out 1"
    for topic in downlink_filters(bridge.node):
        yield f"topic {topic} in 1"
