"""Configuration of the console."""

from typing import Annotated

from msgspec import Meta, Struct

from bus.config import Broker, HealthAddress, OutboxLimits
from schemas.field_types import Name
from schemas.topics import check_component_name

ListenAddress = Annotated[
    str, Meta(pattern=r"^[^ ]+:[0-9]{1,5}$(?!\n)", description="HOST:PORT of the pages; port 0: any free one")
]


class ServerTls(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Files for HTTPS, as paths of PEM files."""

    certificate: Annotated[str, Meta(description="certificate of the console, with its intermediates")]
    key: Annotated[str, Meta(description="its private key")]


class Proxy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A reverse proxy that authenticates people and names them in headers."""

    addresses: Annotated[
        list[str], Meta(min_length=1, description="IP addresses whose headers are believed; no others are")
    ]
    user_header: Annotated[str, Meta(min_length=1, description="header with the person's name")] = (
        "X-Forwarded-User"
    )
    role_header: Annotated[str, Meta(description="header with the role; absent or unknown: viewer")] = (
        "X-Forwarded-Role"
    )


class ConsoleConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of `gleaner console`."""

    broker: Broker = Broker()
    name: Annotated[Name, Meta(description="`console`, `console-2`, …: unique at the broker")] = "console"
    listen: ListenAddress = "127.0.0.1:8765"
    hosts: Annotated[
        list[str],
        Meta(description="further names under which people open it; loopback and `listen` are known"),
    ] = []
    tls: Annotated[ServerTls | None, Meta(description="HTTPS; plain HTTP if absent")] = None
    accounts: Annotated[
        str | None,
        Meta(description="file of accounts, see `gleaner console user`; absent: one-time addresses"),
    ] = None
    proxy: Annotated[Proxy | None, Meta(description="a reverse proxy that names people; none if absent")] = (
        None
    )
    dataset: Annotated[str, Meta(description="folder or URL of the Lance table")] = "dataset.lance"
    models: Annotated[str, Meta(description="folder of the model versions")] = "models"
    cache: Annotated[str, Meta(description="folder of the trainings' embeddings; may not exist")] = (
        "~/.cache/gleaner/features"
    )
    state_dir: Annotated[
        str, Meta(description="folder for labels to send, the audit trail and thumbnails")
    ] = "/var/lib/gleaner/console"
    outbox: OutboxLimits = OutboxLimits(max_messages=10_000, max_bytes=10_000_000)
    undo_s: Annotated[
        float,
        Meta(ge=0, le=600, description="how long a label can be taken back before it is sent, in seconds"),
    ] = 5.0
    lease_s: Annotated[
        float,
        Meta(
            ge=1, le=3600, description="how long a photo is reserved for the person who sees it, in seconds"
        ),
    ] = 120.0
    session_s: Annotated[
        int,
        Meta(
            ge=60,
            le=31_536_000,
            description="how long a person stays logged in without a request, in seconds",
        ),
    ] = 604_800
    cache_bytes: Annotated[
        int, Meta(ge=1_000_000, description="most bytes of cached thumbnails on the disk")
    ] = 256_000_000
    probes: HealthAddress | None = None

    def __post_init__(self) -> None:
        check_component_name(self.name, "console")
