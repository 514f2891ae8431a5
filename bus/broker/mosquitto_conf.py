"""Generate mosquitto.conf for mosquitto 2.0: limits, access control, and the bridge from edge to cloud."""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from bus.config import ConfigError, Tls
from bus.security import acl
from schemas.codec import MAX_PAYLOAD_BYTES

MEMORY_LIMIT_BYTES = 1_000_000_000
QUEUED_BYTES = 128_000_000
# More than the 256 in-flight photos of an edge, so that the next one is still delivered and can be deferred.
# Less than half of the 1024 places in a subscription's queue, so that a reconnect that redelivers everything
# cannot overflow it.
_INFLIGHT_MESSAGES = 500
# Higher than memory_limit ever allows. The default of 1000 silently drops QoS 1 messages above it; with 0,
# which means no limit, 2.0.11 disconnects a client that publishes a message that is too large or not
# permitted.
_QUEUED_MESSAGES = 1_000_000


@dataclass(frozen=True, slots=True)
class Access:
    """TLS with client certificates on two ports, and the access control list.

    On both ports the user name of a client is the common name of its certificate. On the first port it is
    also the client id, so that no client can disconnect or impersonate another; each identity has one
    connection there. Cloud components and the operator's commands need several connections: they use the next
    port, where clients choose their ids, with its own CA.

    Args:
        tls: CA of devices, edges and bridges; certificate and key of the broker.
        operations: Path of the CA certificate of cloud components and the operator.
        acl_file: Path of the access control list.
        revoked: Path of the lists of revoked certificates, one of each CA; None: none is checked.
    """

    tls: Tls
    operations: str
    acl_file: str
    revoked: str | None = None


@dataclass(frozen=True, slots=True)
class Bridge:
    """Bridge from the broker of an edge node to the cloud's broker.

    Args:
        node: The edge node.
        host: Host of the cloud's broker.
        port: Port of the cloud's broker.
        tls: CA, certificate and key of the node; unencrypted if None.
    """

    node: str
    host: str
    port: int
    tls: Tls | None = None


def uplink_filters(node: str) -> tuple[str, ...]:
    """Return the filters of the topics that the bridge of a node forwards to the cloud."""
    return acl.filters(acl.bridge(node), "write")


def downlink_filters(node: str) -> tuple[str, ...]:
    """Return the filters of the topics that the bridge of a node forwards from the cloud."""
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
    """Return the text of a mosquitto.conf; without `access` any client may connect, on loopback only.

    Args:
        port: TCP port; with `access`, the next port is used too.
        folder: For the persistence.
        address: Address to listen on; all addresses of the machine if empty.
        access: TLS and access control list.
        bridge: Bridge to the cloud's broker, for an edge node.
        user: User to switch to when root starts it; `mosquitto` if None.

    Raises:
        ConfigError: Without `access`, the address is not a loopback address, or a path is not printable.
    """
    if access is None and not is_loopback(address):
        raise ConfigError(
            f"cannot open an anonymous broker on {address!r}: only on a loopback address",
            hint="set up TLS and access rules with `gleaner provision`",
        )
    lines = [
        *(
            _tls_listeners(port, address, access)
            if access
            else [f"listener {port} {address}", "allow_anonymous true"]
        ),
        "persistence true",
        f"persistence_location {folder}/",
        "autosave_interval 60",
        f"max_queued_messages {_QUEUED_MESSAGES}",
        # For each offline client: every resend would add a copy to its queue. The outbox sends dropped
        # messages again; $SYS/broker/publish/messages/dropped counts them.
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
        lines += _bridge_lines(bridge)
    # A line break would begin another setting; mosquitto reads UTF-8 only, and no control characters.
    if odd := [line for line in lines if not line.isprintable()]:
        raise ConfigError(f"mosquitto cannot read {odd[0]!r}", hint="choose a folder with a printable name")
    return "\n".join(lines) + "\n"


def is_loopback(host: str) -> bool:
    """Return True for a loopback address or `localhost`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _tls_listeners(port: int, address: str, access: Access) -> Iterator[str]:
    yield from _listener(port, address, access.tls.ca, access)
    yield "use_username_as_clientid true"
    yield from _listener(port + 1, address, access.operations, access)
    yield "allow_anonymous false"
    yield f"acl_file {access.acl_file}"


def _listener(port: int, address: str, ca: str, access: Access) -> Iterator[str]:
    yield f"listener {port} {address}".rstrip()
    yield f"cafile {ca}"
    yield f"certfile {access.tls.certificate}"
    yield f"keyfile {access.tls.key}"
    yield "tls_version tlsv1.2"  # the minimum
    yield "require_certificate true"
    yield "use_identity_as_username true"
    if access.revoked:
        yield f"crlfile {access.revoked}"


def _bridge_lines(bridge: Bridge) -> Iterator[str]:
    yield f"connection {bridge.node}"
    yield f"address {bridge.host}:{bridge.port}"
    yield f"remote_clientid {bridge.node}"
    yield "cleansession false"
    yield "bridge_protocol_version mqttv311"
    yield "notifications true"
    yield "notifications_local_only true"  # the bridge may not write their topic in the cloud
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
