"""Configuration of the collector."""

from typing import Annotated

from msgspec import Meta, Struct

from bus.config import Broker, HealthAddress
from schemas.field_types import Name
from schemas.topics import check_component_name


class CollectorConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `gleaner cloud collect` reads from TOML."""

    name: Annotated[Name, Meta(description="collector, or collector-2 and so on where there are several")] = (
        "collector"
    )
    broker: Broker = Broker()
    dataset: Annotated[str, Meta(min_length=1, description="folder or URL of the Lance table")] = (
        "dataset.lance"
    )
    batch: Annotated[int, Meta(ge=1, le=1024, description="maximum number of samples in one commit")] = 128
    dead_letter_rows: Annotated[
        int,
        Meta(
            ge=16,
            description="maximum number of unusable samples in the dead-letter table;"
            " when it is reached, the oldest quarter is deleted",
        ),
    ] = 10_000
    probes: HealthAddress | None = None

    def __post_init__(self) -> None:
        """Refuse reserved names; raises TopicError."""
        check_component_name(self.name, "collector")
