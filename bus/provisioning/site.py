"""The description of a site: its cloud, edge nodes and devices, and the files of each client."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta, Struct, structs

from bus.security import acl
from schemas.errors import PermanentError
from schemas.field_types import Name
from schemas.topics import HANDLERS

# Hosts are written to mosquitto.conf, where a line break would add a setting: hence the strict pattern.
Host = Annotated[str, Meta(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$(?!\n)")]

# Its common name is `mirror@HOST`, and X.509 has 64 characters for it. No identity has an @ in its name.
MirrorHost = Annotated[str, Meta(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,55}[A-Za-z0-9])?$(?!\n)")]
MIRROR = "mirror@"

TLS_PORT = 8883


class Address(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Host and port of a broker; the next port is for cloud components and the operator."""

    host: Host
    port: Annotated[int, Meta(ge=1, le=65534)] = TLS_PORT  # the next one must exist too

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Edge(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """An edge node."""

    broker: Address
    devices: list[Name] = []
    handlers: Annotated[int, Meta(ge=1, le=len(HANDLERS))] = 1
    homeassistant: bool = False


class Site(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Everything that was provisioned so far; stored as `site.json`.

    Fields that have their default are not stored, so that an older version, which does not know a field,
    reads the site as long as nothing uses it. A default that was released never changes.

    Args:
        cloud: The cloud's broker.
        edges: Edge nodes by name.
        collectors: Number of collectors.
        mirrors: Hosts of mirrors of bundles.
        home: Absolute path of each folder on its own machine; None if the folders are used where they are
            written.
    """

    cloud: Address
    edges: dict[Name, Edge] = {}
    collectors: Annotated[int, Meta(ge=1, le=99)] = 2
    mirrors: list[MirrorHost] = []
    home: Annotated[str, Meta(pattern=r"^/[^\n]*[^/\n]$")] | None = None


@dataclass(frozen=True, slots=True)
class ClientFiles:
    """A client and its files: `folder/stem.key`, `.pem` and, for most, `.toml`.

    Args:
        identity: The client.
        folder: Folder below that of the site.
        stem: Name of the files without extension.
        authority: The CA that signs its certificate, and so the broker port that it uses: `ca` for the first,
            `operations` for the next.
    """

    identity: acl.Identity
    folder: str
    stem: str
    authority: Literal["ca", "operations"]


def with_edge(
    site: Site,
    node: str,
    broker: Address | None,
    devices: list[str],
    handlers: int | None = None,
    *,
    homeassistant: bool = False,
) -> Site:
    """Return the site with an edge node and devices added; existing ones stay.

    Args:
        site: The site.
        node: A new or existing node.
        broker: Address of its broker; None: unchanged, for a new node port 8883 of the host `node`.
        devices: Devices to add.
        handlers: How many handlers share its photos; None: unchanged, for a new node 1.
        homeassistant: Whether to add a certificate for Home Assistant at its broker.

    Raises:
        TopicError: A name is not valid.
        PermanentError: The node exists with another broker.
    """
    # These raise TopicError for invalid names, before anything is changed.
    acl.edge(node)
    for device in devices:
        acl.device(node, device)
    existing = site.edges.get(node)
    if existing is not None and broker not in (None, existing.broker):
        raise PermanentError(
            f"the broker of edge {node} cannot change from {existing.broker} to {broker}: "
            "certificates and files contain the address (see site.json)"
        )
    edge = existing or Edge(broker=broker or Address(host=node))
    edge = structs.replace(
        edge,
        devices=sorted({*edge.devices, *devices}),
        handlers=edge.handlers if handlers is None else handlers,
        homeassistant=edge.homeassistant or homeassistant,
    )
    return structs.replace(site, edges=site.edges | {node: edge})


def without_device(site: Site, name: str) -> Site:
    """Return the site without a device, named `node.device`.

    Raises:
        PermanentError: The site does not have this device.
    """
    node, _, device = name.partition(".")
    edge = site.edges.get(node)
    if edge is None or device not in edge.devices:
        raise PermanentError(f"there is no device {name} in this site", hint="name it as NODE.DEVICE")
    remaining = [other for other in edge.devices if other != device]
    return structs.replace(site, edges=site.edges | {node: structs.replace(edge, devices=remaining)})


def without_node(site: Site, node: str) -> Site:
    """Return the site without an edge node and its devices.

    Raises:
        PermanentError: The site does not have this node.
    """
    if node not in site.edges:
        raise PermanentError(f"there is no edge {node} in this site")
    return structs.replace(site, edges={name: edge for name, edge in site.edges.items() if name != node})


def without_mirror(site: Site, name: str) -> Site:
    """Return the site without a mirror, named `mirror@HOST`.

    Raises:
        PermanentError: The site does not have this mirror.
    """
    host = name.removeprefix(MIRROR)
    if host not in site.mirrors:
        raise PermanentError(f"there is no mirror {host} in this site")
    return structs.replace(site, mirrors=[other for other in site.mirrors if other != host])


def client_files(site: Site) -> Iterator[ClientFiles]:
    """Yield all clients of a site with their files."""
    for node, edge in site.edges.items():
        for handler in HANDLERS[: edge.handlers]:
            yield ClientFiles(acl.edge(node, handler), f"edges/{node}", handler, "ca")
        yield ClientFiles(acl.bridge(node), f"edges/{node}", "bridge", "ca")
        if edge.homeassistant:
            yield ClientFiles(acl.homeassistant(node), f"edges/{node}", "homeassistant", "ca")
        for name in edge.devices:
            yield ClientFiles(acl.device(node, name), f"devices/{node}.{name}", "device", "ca")
    # The first has no number, so that a site with one collector needs none.
    further_collectors = (f"collector-{number}" for number in range(2, site.collectors + 1))
    for name in ("collector", *further_collectors, "trainer", "rollout", "gateway", "console", "notify"):
        yield ClientFiles(acl.component(name), "cloud", name, "operations")
    yield ClientFiles(acl.component("operator"), "operator", "operator", "operations")


def allowed_identities(site: Site, node: str | None) -> list[acl.Identity]:
    """Return the identities in the ACL of a node's broker, or of the cloud's broker if `node` is None."""
    identities = [files.identity for files in client_files(site)]
    if node is not None:
        # A bridge connects from this broker to the cloud's, not to this one.
        local = [identity for identity in identities if identity.node == node and identity.kind != "bridge"]
        return [*local, acl.eventbus(node), acl.component("operator")]
    # Devices and handlers connect only to the broker of their node.
    return [one for one in identities if one.kind not in ("device", "edge", "homeassistant")]
