"""Decide which message of an outbox is sent next, without I/O and without a clock.

All times are seconds of a monotonic clock, passed in by the caller.
"""

import heapq
import random
from collections import deque
from dataclasses import dataclass, field

from bus.backoff import resend_delay
from bus.config import OutboxLimits
from bus.outbox.silence import Silence


@dataclass(slots=True)
class Entry:
    """A message that waits for its answer.

    Args:
        message_id: Its id.
        topic: Its topic name.
        size_bytes: Size of its payload.
        created_at: When it was created, possibly before this process started.
        attempts: How often it was due since the last connection; sets the delay until it is due again.
        send_count: How often it may have been sent, including earlier runs.
        due_at: When it is sent again.
        backlog: Whether it is older than `live_s`.
        queued: Whether it waits for a free sender.
        sent: Whether this run has sent it.
        tried_at: When this run tried to send it for the first time.
        payload: Its payload, if cached; otherwise it is read from the database.
    """

    message_id: str
    topic: str
    size_bytes: int
    created_at: float
    attempts: int = 0
    send_count: int = 0
    due_at: float = 0.0
    backlog: bool = False
    queued: bool = False
    sent: bool = False
    tried_at: float | None = None
    payload: bytes | None = None


@dataclass(slots=True)
class Schedule:
    """Order of sending.

    First those that are due again, then new ones while the window has room: live ones before backlog. Backlog
    gets at most its share of the window, and at least one place if any waits.

    Args:
        limits: Window, shares and delays.
        rng: Source of randomness for the delays.
        silence: Holds repetitions back while no answer arrives; None repeats each message.
    """

    limits: OutboxLimits
    rng: random.Random = field(default_factory=random.Random)
    silence: Silence | None = None
    _entries: dict[str, Entry] = field(default_factory=dict)
    # Ids in order of arrival. An id stays here after its entry was removed, and is skipped when it comes
    # first.
    _live: deque[str] = field(default_factory=deque)
    _backlog: deque[str] = field(default_factory=deque)
    _in_flight: set[str] = field(default_factory=set)
    _in_flight_backlog: int = 0
    # Heap of (due time, id). A later timer of the same message makes an earlier one stale.
    _timers: list[tuple[float, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, message_id: str) -> bool:
        return message_id in self._entries

    def send_count(self, message_id: str) -> int:
        """Return how often a message may have been sent, 0 if it does not wait for an answer."""
        entry = self._entries.get(message_id)
        return 0 if entry is None else entry.send_count

    @property
    def unanswered(self) -> int:
        """Number of messages that were sent and are not answered."""
        return len(self._in_flight)

    @property
    def unanswered_bytes(self) -> int:
        """Sum of their payloads, in bytes."""
        return sum(self._entries[message_id].size_bytes for message_id in self._in_flight)

    def oldest_created_at(self) -> float | None:
        """Return when the message was created that was added first; None if it is empty."""
        return next((entry.created_at for entry in self._entries.values()), None)

    def overdue(self, before: float) -> list[Entry]:
        """Return the unanswered messages first tried before a moment, the oldest first."""
        sent = (self._entries[message_id] for message_id in self._in_flight)
        found = [entry for entry in sent if entry.tried_at is not None and entry.tried_at < before]
        return sorted(found, key=lambda entry: entry.tried_at or 0.0)

    def add(self, entry: Entry, now: float) -> None:
        """Add a message, as live or backlog according to its age."""
        self._entries[entry.message_id] = entry
        entry.backlog = now - entry.created_at > self.limits.live_s
        (self._backlog if entry.backlog else self._live).append(entry.message_id)

    def answered(self, now: float) -> None:
        """Note that an answer arrived."""
        if self.silence is None or not self.silence.answered(now):
            return
        # What was sent before is in transit: repeating all of it would only delay it.
        for message_id in self._in_flight:
            self._set_timer(self._entries[message_id], now + self.limits.resend_cap_s)

    def remove(self, message_id: str) -> Entry | None:
        """Remove a message that was answered or dropped; return it, None if it is unknown."""
        entry = self._entries.pop(message_id, None)
        if self.silence is not None:
            self.silence.forget(message_id)
        if entry is not None and message_id in self._in_flight:
            self._in_flight.remove(message_id)
            self._in_flight_backlog -= entry.backlog
        return entry

    def restore(self, entry: Entry) -> None:
        """Add a message again that was the oldest unsent one and was removed."""
        self._entries[entry.message_id] = entry
        waiting = self._backlog if entry.backlog else self._live
        if entry.message_id not in waiting:  # its id is skipped there when it comes first
            waiting.appendleft(entry.message_id)

    def oldest_unsent(self) -> str | None:
        """Return the id of the oldest message that was not sent yet, None if all were."""
        for waiting in (self._backlog, self._live):  # backlog is older
            while waiting and (waiting[0] not in self._entries or waiting[0] in self._in_flight):
                waiting.popleft()
            if waiting:
                return waiting[0]
        return None

    def take_due(self, now: float) -> list[Entry]:
        """Return the messages to send now, and start their resend timers."""
        due = [self._restart(entry, now) for entry in self._due(now)]
        while (message_id := self._next(now)) is not None:
            entry = self._entries[message_id]
            self._in_flight.add(message_id)
            self._in_flight_backlog += entry.backlog
            due.append(self._restart(entry, now))
        return due

    def restart_timer(self, entry: Entry, now: float) -> None:
        """Restart the resend timer of a message that was sent some time after `take_due` returned it."""
        if entry.message_id in self._in_flight:
            self._start_timer(entry, now)

    def next_due(self) -> float | None:
        """Return when the next resend timer ends, or None."""
        while self._timers and self._stale(*self._timers[0]):
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def resend_soon(self, now: float, spread_s: float = 1.0) -> None:
        """Make all unanswered messages due within `spread_s` seconds: the connection is new."""
        if self.silence is not None and self._in_flight:
            self.silence.restart(now)
        # Spread out, so that a full window is not sent in one burst.
        for message_id in self._in_flight:
            self._entries[message_id].attempts = 0  # the backoff belonged to the old connection
            self._set_timer(self._entries[message_id], now + self.rng.uniform(0, spread_s))

    def defer(self, message_id: str, now: float, retry_after_s: float | None = None) -> None:
        """Postpone sending a message again, by `resend_cap_s` if no delay is given.

        A given delay grows with the attempts, so that a receiver without room gets fewer and fewer messages.
        """
        if message_id not in self._in_flight:
            return
        entry, delay_s = self._entries[message_id], self.limits.resend_cap_s
        if retry_after_s is not None:
            delay_s = resend_delay(entry.attempts, first_s=retry_after_s, cap_s=delay_s, rng=self.rng)
        self._set_timer(entry, now + delay_s)

    def _due(self, now: float) -> list[Entry]:
        due = []
        while self._timers and self._timers[0][0] <= now:
            due_at, message_id = heapq.heappop(self._timers)
            if self._stale(due_at, message_id):
                continue
            if self.silence is None or self.silence.may_repeat(message_id, now):
                due.append(self._entries[message_id])
            else:
                self._set_timer(self._entries[message_id], now + self.limits.resend_cap_s)
        return due

    def _stale(self, due_at: float, message_id: str) -> bool:
        """Return True for a timer whose message was answered or has a later timer."""
        entry = self._entries.get(message_id)
        return entry is None or message_id not in self._in_flight or entry.due_at != due_at

    def _restart(self, entry: Entry, now: float) -> Entry:
        if self.silence is not None:
            self.silence.sent(now)
        entry.attempts += 1
        self._start_timer(entry, now)
        return entry

    def _start_timer(self, entry: Entry, now: float) -> None:
        delay_s = resend_delay(
            entry.attempts,
            first_s=self.limits.resend_first_s,
            cap_s=self.limits.resend_cap_s,
            rng=self.rng,
        )
        self._set_timer(entry, now + delay_s)

    def _set_timer(self, entry: Entry, due_at: float) -> None:
        entry.due_at = due_at
        heapq.heappush(self._timers, (due_at, entry.message_id))

    def _next(self, now: float) -> str | None:
        """Return the next new message if the window has room for one, else None."""
        self._move_to_backlog(now)
        room = self.limits.window - len(self._in_flight)
        # At least 1: a small window must not exclude backlog altogether.
        share = max(1, int(self.limits.window * self.limits.backlog_share))
        backlog_allowed = bool(self._peek(self._backlog)) and self._in_flight_backlog < share
        # One place is kept free for backlog, so that a flood of live messages cannot starve it.
        reserved = 1 if backlog_allowed and self._in_flight_backlog == 0 else 0
        if self._peek(self._live) and room > reserved:
            return self._live.popleft()
        if backlog_allowed and room > 0:
            return self._backlog.popleft()
        return None

    def _move_to_backlog(self, now: float) -> None:
        """Move live messages that became older than `live_s` to the backlog."""
        while self._peek(self._live):
            entry = self._entries[self._live[0]]
            if now - entry.created_at <= self.limits.live_s:
                return
            entry.backlog = True
            self._backlog.append(self._live.popleft())

    def _peek(self, waiting: deque[str]) -> str | None:
        while waiting and waiting[0] not in self._entries:
            waiting.popleft()
        return waiting[0] if waiting else None
