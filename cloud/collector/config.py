"""TODO."""

from typing import Annotated

from msgspec import Meta, Struct

from bus.config import Broker, HealthAddress
from schemas.messages import Name


class CollectorConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `gleaner cloud collect` reads from TOML."""

    name: Annotated[Name, Meta(description="collector, or collector-2 and so on where there are several")] = (
        "collector"
    )
    broker: Broker = Broker()
    dataset: Annotated[str, Meta(min_length=1, description="folder or URL of the Lance table")] = (
        "dataset.lance"
    )
    batch: Annotated[int, Meta(ge=1, le=1024, description="most samples in one commit")] = 128
    quarantine_rows: Annotated[
        int, Meta(ge=16, description="most samples kept that cannot be used; the oldest go")
    ] = 10_000
    quarantine_bytes: Annotated[
        int, Meta(ge=2**24, description="most bytes of them; three quarters stay when the oldest go")
    ] = 256_000_000
    probes: HealthAddress | None = None
