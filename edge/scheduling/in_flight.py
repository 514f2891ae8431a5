"""A photo from its arrival to its answer."""

from collections.abc import Callable
from dataclasses import dataclass, field

from bus.observability.tracing import Span
from edge.scheduling.clocks import is_expired
from edge.scheduling.cost import EXPENSIVE_MS
from edge.serving.client import UnfinishedError
from schemas.messages import Photo

PhotoKey = tuple[str, str]
"""Device and photo id: two devices may send the same bytes, and one must not get the other's result."""


@dataclass(slots=True, eq=False)
class InFlightPhoto:
    """A photo that was received and is not answered yet.

    Args:
        photo: As far as its payload could be read; the image is not decoded.
        ack: Acknowledges the newest delivery to the broker.
        arrived_at: Of the first delivery, seconds of the monotonic clock.
        deferral_sent: Whether its sender got a `deferred` result.
        holds_share: Whether it counts against `Bounds.per_device`.
        clock_offset_ms: The edge's clock minus that of the device.
        bare: Whether it came as a bare image, so that its id is the digest of its bytes.
        renew: Whether a recorded result of it is replaced.
        unfinished: A call with this photo alone that is still running after its deadline.
        slow: Whether its call took unusually long, so that it should not be in a batch with others.
        key: Device and photo id.
        repeated: Whether it was answered before, so that it does not take the place of a new one.
        cost_ms: Estimate of the time to decode it, see `edge.scheduling.cost`.
        suspected: Whether it has a row in `edge.inference.attempts`.
        attempts: How often the model server or the edge ended while it was tried alone, in all runs.
        span: From its arrival to its answer; None if traces are off. `photo.trace` is then its context.
    """

    photo: Photo
    ack: Callable[[], None]
    arrived_at: float
    deferral_sent: bool = False
    holds_share: bool = False
    clock_offset_ms: int = 0
    bare: bool = False
    renew: bool = False
    unfinished: UnfinishedError | None = None
    slow: bool = False
    repeated: bool = False
    suspected: bool = False
    attempts: int = 0
    cost_ms: float = 0.0
    span: Span | None = None
    key: PhotoKey = field(init=False)

    def __post_init__(self) -> None:
        """Set the key."""
        self.key = self.photo.device, self.photo.photo_id

    @property
    def is_expensive(self) -> bool:
        """True if only few photos like this may be decoded at once."""
        return self.cost_ms > EXPENSIVE_MS

    def is_expired(self, now_ms: int) -> bool:
        """Return True if the sender no longer wants an answer, at a time of the edge's clock."""
        return is_expired(self.photo, now_ms, self.clock_offset_ms)
