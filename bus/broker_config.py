"""The broker's configuration as text for mosquitto 2.0: bounds, access, and the bridge from edge to cloud."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bus.config import Tls
from schemas.codec import MAX_PAYLOAD_BYTES
from schemas.topics import COMMAND, EVENT, FEEDBACK, POLICY, RECEIPT, RELEASE, SAMPLE, STATUS

MEMORY_LIMIT_BYTES = 1_000_000_000
QUEUED_BYTES = 128_000_000
# More than the 256 photos that an edge may have in hand, so that even then the next one arrives and is told;
# less than half the 1024 deliveries that a subscription's queue holds, so that none finds it full, not even
# when a new connection brings again what the last one left in it.
_INFLIGHT_MESSAGES = 500


@dataclass(frozen=True, slots=True)
class Access:
    """Who may connect and what they may do: TLS with client certificates, and mosquitto's list of rights.

    A client's name is its certificate's common name, and its client id is that name too, so that nobody can
    throw out or impersonate another.

    Args:
        tls: Certificate of the authority, and the broker's own certificate and key.
        rights: The access control list.
    """

    tls: Tls
    rights: Path


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


def uplink(node: str) -> tuple[str, ...]:
    """Return the topics that cross from an edge node to the cloud."""
    return (
        SAMPLE.name(node=node),
        FEEDBACK.select(node=node),
        STATUS.name(node=node, name="edge"),
        EVENT.name(node=node, name="edge"),
    )


def downlink(node: str) -> tuple[str, ...]:
    """Return the topics that cross from the cloud to an edge node."""
    return (
        RECEIPT.name(node=node),
        POLICY.name(node=node),
        RELEASE.name(node=node),
        COMMAND.select(node=node),
    )


def configuration(
    port: int,
    folder: Path,
    *,
    address: str = "127.0.0.1",
    access: Access | None = None,
    bridge: Bridge | None = None,
) -> str:
    """Return a configuration; without `access` it lets anybody in and is for loopback only.

    `max_queued_messages` is 1000 by default, above which mosquitto drops QoS 1 messages without a word; 0
    lifts it. What bounds memory instead are `memory_limit`, and `max_queued_bytes` for each client that stays
    away: every resend to it would add a copy. A message dropped there is sent again by the outbox that has no
    answer yet, and `$SYS/broker/publish/messages/dropped` counts it.

    Args:
        port: TCP port.
        folder: For the persistence.
        address: To listen on.
        access: Certificates and rights.
        bridge: To the cloud's broker, for an edge node.
    """
    lines = [
        f"listener {port} {address}",
        *(_secured(access) if access else ["allow_anonymous true"]),
        "persistence true",
        f"persistence_location {folder}/",
        "autosave_interval 60",
        "max_queued_messages 0",
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
    if os.geteuid() == 0:
        lines.append("user root")  # else it drops to a user that may not read our folder
    if bridge:
        lines += _bridged(bridge)
    return "\n".join(lines) + "\n"


def _secured(access: Access) -> Iterator[str]:
    yield "allow_anonymous false"
    yield f"cafile {access.tls.ca}"
    yield f"certfile {access.tls.certificate}"
    yield f"keyfile {access.tls.key}"
    yield "tls_version tlsv1.2"  # or later
    yield "require_certificate true"
    yield "use_identity_as_username true"
    yield "use_username_as_clientid true"
    yield f"acl_file {access.rights}"


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
    for topic in uplink(bridge.node):
        yield f"topic {topic} out 1"
    for topic in downlink(bridge.node):
        yield f"topic {topic} in 1"
