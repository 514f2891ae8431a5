"""Which message of an outbox goes out next: decisions without I/O or clock.

Times are seconds of a monotonic clock that the caller reads; ages are told by the caller too, because a
message may be older than this process.
"""

import heapq
import random
from collections import deque
from dataclasses import dataclass, field

from bus.backoff import resend_delay
from bus.config import OutboxLimits


@dataclass(slots=True)
class Entry:
    """A message that waits for its answer. What it says is in the database."""

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
    payload: bytes | None = None


@dataclass(slots=True)
class Schedule:
    """The order of sending.

    First whatever is due again, then new messages while the window has room: live ones before backlog,
    which takes at most its share of the window and, once it waits, at least one place.
    """

    limits: OutboxLimits
    draw: random.Random = field(default_factory=random.Random)
    _entries: dict[str, Entry] = field(default_factory=dict)
    _live: deque[str] = field(default_factory=deque)
    _backlog: deque[str] = field(default_factory=deque)
    _sent: set[str] = field(default_factory=set)
    _sent_backlog: int = 0
    _timers: list[tuple[float, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, message_id: str) -> bool:
        return message_id in self._entries

    def send_count(self, message_id: str) -> int:
        """Return how often a message may have left, 0 if it does not wait."""
        entry = self._entries.get(message_id)
        return 0 if entry is None else entry.send_count

    @property
    def unanswered(self) -> int:
        """How many were sent and have no answer yet."""
        return len(self._sent)

    def add(self, entry: Entry, now: float) -> None:
        """Queue a message, as live or as backlog by its age."""
        self._entries[entry.message_id] = entry
        entry.backlog = now - entry.created_at > self.limits.live_s
        (self._backlog if entry.backlog else self._live).append(entry.message_id)

    def remove(self, message_id: str) -> Entry | None:
        """Forget a message, because it was answered or dropped. Returns None if it was not waiting."""
        entry = self._entries.pop(message_id, None)
        if entry is not None and message_id in self._sent:
            self._sent.remove(message_id)
            self._sent_backlog -= entry.backlog
        return entry

    def oldest_waiting(self) -> str | None:
        """Return the oldest message that was not sent yet."""
        for waiting in (self._backlog, self._live):
            while waiting and (waiting[0] not in self._entries or waiting[0] in self._sent):
                waiting.popleft()
            if waiting:
                return waiting[0]
        return None

    def take(self, now: float) -> list[Entry]:
        """Return what is to be sent now and start the wait for its answers."""
        due = [self._restart(entry, now) for entry in self._due(now)]
        while (message_id := self._next(now)) is not None:
            entry = self._entries[message_id]
            self._sent.add(message_id)
            self._sent_backlog += entry.backlog
            due.append(self._restart(entry, now))
        return due

    def left(self, entry: Entry, now: float) -> None:
        """Start the wait for an answer anew: the message that `take` returned has only left now."""
        if entry.message_id in self._sent:
            self._await_answer(entry, now)

    def next_due(self) -> float | None:
        """Return when `take` will have something again, if nothing else happens."""
        while self._timers and self._stale(*self._timers[0]):
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def hurry(self, now: float, spread_s: float = 1.0) -> None:
        """Send everything unanswered again soon, because the connection is new."""
        for message_id in self._sent:
            self._entries[message_id].attempts = 0
            self._wait(self._entries[message_id], now + self.draw.uniform(0, spread_s))

    def defer(self, message_id: str, now: float) -> None:
        """Wait as long as the limits allow before sending this one again."""
        if message_id in self._sent:
            self._wait(self._entries[message_id], now + self.limits.resend_cap_s)

    def _due(self, now: float) -> list[Entry]:
        due = []
        while self._timers and self._timers[0][0] <= now:
            due_at, message_id = heapq.heappop(self._timers)
            if not self._stale(due_at, message_id):
                due.append(self._entries[message_id])
        return due

    def _stale(self, due_at: float, message_id: str) -> bool:
        """Tell whether a timer was overtaken by an answer or by a later timer."""
        entry = self._entries.get(message_id)
        return entry is None or message_id not in self._sent or entry.due_at != due_at

    def _restart(self, entry: Entry, now: float) -> Entry:
        entry.attempts += 1
        self._await_answer(entry, now)
        return entry

    def _await_answer(self, entry: Entry, now: float) -> None:
        delay_s = resend_delay(
            entry.attempts,
            first_s=self.limits.resend_first_s,
            cap_s=self.limits.resend_cap_s,
            draw=self.draw,
        )
        self._wait(entry, now + delay_s)

    def _wait(self, entry: Entry, due_at: float) -> None:
        entry.due_at = due_at
        heapq.heappush(self._timers, (due_at, entry.message_id))

    def _next(self, now: float) -> str | None:
        """Return the next new message that the window has room for."""
        self._age(now)
        room = self.limits.window - len(self._sent)
        share = max(1, int(self.limits.window * self.limits.backlog_share))
        backlog_may = bool(self._peek(self._backlog)) and self._sent_backlog < share
        reserved = 1 if backlog_may and self._sent_backlog == 0 else 0
        if self._peek(self._live) and room > reserved:
            return self._live.popleft()
        if backlog_may and room > 0:
            return self._backlog.popleft()
        return None

    def _age(self, now: float) -> None:
        """Move what waited too long from live to backlog."""
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
