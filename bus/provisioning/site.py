"""What a site consists of: its cloud, its edge nodes and their devices, and who sits in which folder."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta, Struct, structs

from bus.security import acl
from schemas.errors import PermanentError
from schemas.messages import Name
from schemas.topics import HANDLERS

Host = Annotated[str, Meta(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$(?!\n)")]

TLS_PORT = 8883


class Address(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where clients reach a broker; the next port is for the cloud's components and the operator."""

    host: Host
    port: Annotated[int, Meta(ge=1, le=65534)] = TLS_PORT

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Edge(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An edge node."""

    broker: Address
    devices: list[Name] = []
    handlers: Annotated[int, Meta(ge=1, le=len(HANDLERS))] = 1


class Site(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that was provisioned so far.

    Args:
        cloud: Its broker.
        edges: By name.
        collectors: How many.
        home: Where each folder will be on its machine; None: they stay where they are made.
    """

    cloud: Address
    edges: dict[Name, Edge] = {}
    collectors: Annotated[int, Meta(ge=1, le=99)] = 2
    home: Annotated[str, Meta(pattern=r"^/[^\n]*[^/\n]$")] | None = None


@dataclass(frozen=True, slots=True)
class ClientFiles:
    """A client and where its files are: `folder/stem.key`, `.pem` and, with `toml`, `.toml`.

    Args:
        identity: Who.
        folder: Below the site's.
        stem: Of its files.
        authority: Who vouches for it, and so which of a broker's two ports it comes in by.
    """

    identity: acl.Identity
    folder: str
    stem: str
    authority: Literal["ca", "operations"]


def with_edge(
    site: Site, node: str, broker: Address | None, devices: list[str], handlers: int | None = None
) -> Site:
    """Return the site with an edge node and devices of it; what is there stays.

    Args:
        site: As it is.
        node: New, or there already.
        broker: Its own, at port 8883 of the host `node` if nothing is said.
        devices: More of them.
        handlers: How many share its photos, as before or 1 if nothing is said.

    Raises:
        TopicError: A name cannot be used.
        PermanentError: The node is there with another broker.
    """
    acl.edge(node)
    for device in devices:
        acl.device(node, device)
    there = site.edges.get(node)
    if there is not None and broker not in (None, there.broker):
        raise PermanentError(
            f"edge {node}", expected=f"its broker {there.broker} as before (see site.json)", got=broker
        )
    known = there or Edge(broker=broker or Address(host=node))
    both = sorted({*known.devices, *devices})
    edge = structs.replace(known, devices=both, handlers=known.handlers if handlers is None else handlers)
    return structs.replace(site, edges=site.edges | {node: edge})


def without_device(site: Site, name: str) -> Site:
    """Return the site without a device, named `node.device`.

    Raises:
        PermanentError: There is no such device.
    """
    node, _, device = name.partition(".")
    edge = site.edges.get(node)
    if edge is None or device not in edge.devices:
        raise PermanentError(f"device {name}", expected="NODE.DEVICE of this site", got="none such")
    left = [other for other in edge.devices if other != device]
    return structs.replace(site, edges=site.edges | {node: structs.replace(edge, devices=left)})


def client_files(site: Site) -> Iterator[ClientFiles]:
    """Yield every client of a site."""
    for node, edge in site.edges.items():
        for handler in HANDLERS[: edge.handlers]:
            yield ClientFiles(acl.edge(node, handler), f"edges/{node}", handler, "ca")
        yield ClientFiles(acl.bridge(node), f"edges/{node}", "bridge", "ca")
        for name in edge.devices:
            yield ClientFiles(acl.device(node, name), f"devices/{node}.{name}", "device", "ca")
    more = (f"collector-{number}" for number in range(2, site.collectors + 1))
    for name in ("collector", *more, "trainer", "rollout", "gateway"):
        yield ClientFiles(acl.component(name), "cloud", name, "operations")
    yield ClientFiles(acl.component("operator"), "operator", "operator", "operations")


def allowed_identities(site: Site, node: str | None) -> list[acl.Identity]:
    """Return who may do something at a node's broker, or at the cloud's if None."""
    everybody = [seat.identity for seat in client_files(site)]
    if node is not None:
        local = [who for who in everybody if who.node == node and who.kind != "bridge"]
        return [*local, acl.eventbus(node), acl.component("operator")]
    return [who for who in everybody if who.kind not in ("device", "edge")]
