"""Sum news up and decide when to send them: without I/O and clock."""

from dataclasses import dataclass, field
from typing import NamedTuple

_TEXTS_PER_KIND = 3
_MAX_TEXT_CHARS = 300


class News(NamedTuple):
    """Something to report: its kind, such as `round.failed`, and one line of text."""

    kind: str
    text: str


class Summary(NamedTuple):
    """A message for people."""

    title: str
    body: str


@dataclass(slots=True)
class _Group:
    count: int = 0
    texts: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        self.count += 1
        self.texts = [*self.texts, text][-_TEXTS_PER_KIND:]


class Digest:
    """News that wait to be sent as one message.

    The first one waits a little for others that come with it; after a message, the next one waits longer.
    Bounded: of each kind the newest three texts are kept and all are counted, and there are few kinds.

    Args:
        gather_s: From the first news to the message, in seconds.
        every_s: Least time between two messages, in seconds.
    """

    def __init__(self, gather_s: float, every_s: float) -> None:
        self._gather_s = gather_s
        self._every_s = every_s
        self._groups: dict[str, _Group] = {}
        self._due_at: float | None = None
        self._sent_at: float | None = None

    @property
    def due_at(self) -> float | None:
        """When a message is to be sent; None while there is nothing to report."""
        return self._due_at

    def add(self, news: News, now: float) -> None:
        """Add news at a time in seconds of a monotonic clock."""
        self._groups.setdefault(news.kind, _Group()).add(_one_line(news.text))
        if self._due_at is None:
            earliest = now if self._sent_at is None else self._sent_at + self._every_s
            self._due_at = max(now + self._gather_s, earliest)

    def take(self, now: float) -> Summary | None:
        """Return what is due now as one message, and forget it; None if nothing is."""
        if self._due_at is None or now < self._due_at:
            return None
        groups, self._groups = self._groups, {}
        self._due_at, self._sent_at = None, now
        return summary(groups)


def summary(groups: dict[str, _Group]) -> Summary:
    """Return a message: a title with the only news or their number, and a line for each text."""
    total = sum(group.count for group in groups.values())
    lines: list[str] = []
    for kind, group in groups.items():
        lines += [f"{kind}: {text}" for text in group.texts]
        if (more := group.count - len(group.texts)) > 0:
            lines.append(f"{kind}: and {more} more before")
    title = lines[0] if total == 1 else f"{total} messages: {', '.join(groups)}"
    return Summary(f"Gleaner: {title}", "\n".join(lines))


def _one_line(text: str) -> str:
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= _MAX_TEXT_CHARS else f"{line[: _MAX_TEXT_CHARS - 1]}…"
