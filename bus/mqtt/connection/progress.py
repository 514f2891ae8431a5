"""Decide whether a connection is dead, and how many bytes to send ahead. No I/O, no clock.

A connection is dead when no byte makes progress: neither bytes that the peer's TCP acknowledges, up to the
end of the oldest publish without a PUBACK, nor bytes that arrive. A PUBACK that is late on a slow link proves
nothing.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

SLOWEST_BYTES_PER_S = 4000
"""Rate of the slowest link that is supported, in bytes per second: what a hidden buffer may take to drain."""

_FIRST_WINDOW_BYTES = 256_000
_SMALLEST_WINDOW_BYTES = 64_000
_LARGEST_WINDOW_BYTES = 8_000_000
_AHEAD_S = 2.0


class Traffic(NamedTuple):
    """Bytes of a connection since it was opened.

    Args:
        acknowledged: Sent, and acknowledged by the peer's TCP.
        received: Read from the socket.
    """

    acknowledged: int
    received: int


class _Publish(NamedTuple):
    end: int
    size_bytes: int


@dataclass(slots=True)
class LinkProgress:
    """Publishes without a PUBACK, and when a byte last made progress for the oldest of them.

    Args:
        silence_s: How long no byte may move while few are in flight, in seconds.
    """

    silence_s: float
    _publishes: dict[int, _Publish] = field(default_factory=dict)
    _position: tuple[int, int, int] | None = None
    _moved_at: float = 0.0

    def __len__(self) -> int:
        """Return the number of publishes without a PUBACK."""
        return len(self._publishes)

    def started(self, message_id: int, *, end: int, size_bytes: int) -> None:
        """Note a publish.

        Args:
            message_id: Its MQTT packet id.
            end: Position of its last byte in the stream of sent bytes.
            size_bytes: Its size.
        """
        self._publishes[message_id] = _Publish(end, size_bytes)

    def confirmed(self, message_id: int) -> None:
        """Note the PUBACK of a publish."""
        self._publishes.pop(message_id, None)

    def dead_for_s(self, traffic: Traffic, now: float, *, paused: bool) -> float | None:
        """Return for how many seconds nothing moved if the connection is dead, None if it is not.

        Args:
            traffic: The bytes so far.
            now: Seconds of the monotonic clock.
            paused: Whether we do not read at present, so that a PUBACK cannot arrive.
        """
        if not self._publishes or paused:
            self._position = None
            return None
        oldest, publish = next(iter(self._publishes.items()))
        position = oldest, min(traffic.acknowledged, publish.end), traffic.received
        if position != self._position:
            self._position, self._moved_at = position, now
        silent_s = now - self._moved_at
        return silent_s if silent_s > self._patience_s() else None

    def _patience_s(self) -> float:
        # A proxy, tunnel or modem may hold all of it in a buffer that TCP does not report.
        return (
            self.silence_s + sum(each.size_bytes for each in self._publishes.values()) / SLOWEST_BYTES_PER_S
        )


@dataclass(slots=True)
class SendWindow:
    """How many bytes may be published and not confirmed: about two seconds of the measured rate.

    A message larger than that is sent alone, so a slow link carries one large message at a time.
    """

    limit_bytes: float = _FIRST_WINDOW_BYTES
    unconfirmed_bytes: int = 0
    _confirmed_bytes: int = 0

    def has_room(self, size_bytes: int) -> bool:
        """Return True if a message may be sent now."""
        return not self.unconfirmed_bytes or self.unconfirmed_bytes + size_bytes <= self.limit_bytes

    def started(self, size_bytes: int) -> int:
        """Count a message that is sent; returns a mark for `confirmed`."""
        self.unconfirmed_bytes += size_bytes
        return self._confirmed_bytes

    def confirmed(self, size_bytes: int, mark: int, took_s: float) -> None:
        """Count a PUBACK, and measure the rate from the bytes confirmed since the message was sent."""
        self.unconfirmed_bytes -= size_bytes
        self._confirmed_bytes += size_bytes
        rate = (self._confirmed_bytes - mark) / max(took_s, 1e-3)
        measured = min(max(rate * _AHEAD_S, _SMALLEST_WINDOW_BYTES), _LARGEST_WINDOW_BYTES)
        self.limit_bytes = (self.limit_bytes + measured) / 2

    def abandoned(self, size_bytes: int) -> None:
        """Forget a message that will not be confirmed."""
        self.unconfirmed_bytes -= size_bytes
