"""Configuration of the notifier."""

from typing import Annotated

from msgspec import Meta, Struct

from bus.config import Broker, HealthAddress
from schemas.events import EventName
from schemas.field_types import Name
from schemas.topics import check_component_name

EVENTS = (
    EventName.DRIFT_DETECTED,
    EventName.LABELS_WANTED,
    EventName.MODEL_FAILED,
    EventName.MODEL_REFUSED,
    EventName.POLICY_FAILED,
    EventName.RELEASE_FAILED,
    EventName.ROLLOUT_FINISHED,
    EventName.ROLLOUT_RETURNED,
    EventName.ROUND_FAILED,
    EventName.ROUND_FINISHED,
)


class NotifyConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `gleaner notify` reads from TOML."""

    name: Annotated[Name, Meta(description="notify, or notify-2 where there are several")] = "notify"
    broker: Broker = Broker()
    urls_file: Annotated[
        str,
        Meta(
            min_length=1,
            description="file with the receivers: one Apprise URL on each line, which may contain secrets",
        ),
    ] = "/etc/gleaner/notify.urls"
    events: Annotated[tuple[EventName, ...], Meta(description="events that are notified")] = EVENTS
    silent_s: Annotated[
        float,
        Meta(
            ge=60,
            le=1e6,
            description="seconds without a message after which a node or cloud component is silent",
        ),
    ] = 300.0
    gather_s: Annotated[
        float, Meta(ge=0, le=3600, description="seconds to wait for further news before the first message")
    ] = 5.0
    every_s: Annotated[
        float,
        Meta(ge=0, le=86_400, description="least seconds between two messages, which sum up"),
    ] = 300.0
    probes: HealthAddress | None = None

    def __post_init__(self) -> None:
        """Refuse reserved names; raises TopicError."""
        check_component_name(self.name, "notify")
