"""Detect that a receiver is silent, and hold repetitions back until it answers again. No I/O, no clock.

What was sent over a cut link waits in a broker's queue. Repeated every minute, each message would cross the
link many times once it is back, so that only one message is repeated, as a probe.
"""

from dataclasses import dataclass


@dataclass(slots=True)
class Silence:
    """Whether answers arrive; times in seconds of a monotonic clock.

    Args:
        after_s: Time without any answer, while messages are unanswered, from which the receiver is silent.
    """

    after_s: float
    _waiting_since: float | None = None
    _probe: str | None = None

    def sent(self, now: float) -> None:
        """Note that a message was sent."""
        if self._waiting_since is None:
            self._waiting_since = now

    def answered(self, now: float) -> bool:
        """Note an answer; return True if it ends a silence.

        The next one begins with the next message that is sent. Others that are unanswered prove nothing: they
        may be lost, and then nothing answers them until they are sent again.
        """
        ended = self.holds(now)
        self._waiting_since = None
        self._probe = None
        return ended

    def restart(self, now: float) -> None:
        """Note that the connection is new: each message may be sent once."""
        self._waiting_since = now
        self._probe = None

    def holds(self, now: float) -> bool:
        """Return True if the receiver is silent."""
        return self._waiting_since is not None and now - self._waiting_since > self.after_s

    def may_repeat(self, message_id: str, now: float) -> bool:
        """Return True if a message may be sent again: any, or during a silence the probe alone."""
        if not self.holds(now):
            return True
        if self._probe is None:
            self._probe = message_id
        return message_id == self._probe

    def forget(self, message_id: str) -> None:
        """Choose another probe if this message was it."""
        if self._probe == message_id:
            self._probe = None
