"""Notify open pages of what changed; they then fetch their contents again."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Literal, get_args

Kind = Literal[
    "results", "statuses", "events", "releases", "policies", "photos", "labels", "dataset", "insights"
]
KINDS: tuple[Kind, ...] = get_args(Kind)

MAX_STREAMS = 64
"""Most open pages with a stream; a further one is refused, and its page works without."""
PAUSE_S = 1.0
"""Least seconds between two messages to one page: changes in between are sent together."""
KEEPALIVE_S = 15.0
"""Seconds of silence after which a comment is sent, so that a lost connection is noticed."""


class TooManyStreamsError(Exception):
    """As many pages as allowed are open."""


class Broadcast:
    """The streams of open pages. Bounded: `MAX_STREAMS`, each with at most one entry per kind."""

    def __init__(self) -> None:
        self.sequence = 0
        """How many changes there were; a page remembers it from before it was made."""
        self._changed_at: dict[Kind, int] = {}
        self._streams: set[Stream] = set()
        self._closed = False

    def __len__(self) -> int:
        """Return the number of open streams."""
        return len(self._streams)

    def changed(self, kind: Kind) -> None:
        """Notify every open page that something of a kind changed. Never blocks."""
        self.sequence += 1
        self._changed_at[kind] = self.sequence
        for stream in self._streams:
            stream.add(kind)

    @contextmanager
    def stream(self, since: int | None = None) -> Iterator["Stream"]:
        """Open a stream for the length of a block.

        Args:
            since: `sequence` from before the page was made: changes since then are sent first. A later
                one than the present is of an earlier run, and everything may have changed. None: nothing.

        Raises:
            TooManyStreamsError: `MAX_STREAMS` are open.
        """
        if self._closed or len(self._streams) >= MAX_STREAMS:
            raise TooManyStreamsError
        stream = Stream()
        for kind in self.changed_since(since):
            stream.add(kind)
        self._streams.add(stream)
        try:
            yield stream
        finally:
            self._streams.discard(stream)

    def changed_since(self, since: int | None) -> list[Kind]:
        """Return what changed: everything if `since` is of an earlier run, nothing if it is None."""
        if since is None:
            return []
        return [kind for kind in KINDS if self._changed_at.get(kind, 0) > since or since > self.sequence]

    def close(self) -> None:
        """End every stream, and refuse new ones."""
        self._closed = True
        for stream in self._streams:
            stream.end()


class Stream:
    """The changes that one open page was not notified of yet."""

    def __init__(self) -> None:
        self._kinds: set[Kind] = set()
        self._ended = False
        self._changed = asyncio.Event()

    def add(self, kind: Kind) -> None:
        """Remember that something of a kind changed."""
        self._kinds.add(kind)
        self._changed.set()

    def end(self) -> None:
        """Let `events` return."""
        self._ended = True
        self._changed.set()

    async def events(self) -> AsyncIterator[bytes]:
        """Yield what a browser's EventSource reads, until the stream ends. Safe to cancel."""
        yield b"retry: 2000\n\nevent: open\ndata:\n\n"
        while not self._ended:
            try:
                async with asyncio.timeout(KEEPALIVE_S):
                    await self._changed.wait()
            except TimeoutError:
                yield b":\n\n"
                continue
            self._changed.clear()
            kinds, self._kinds = self._kinds, set()
            if kinds:
                yield b"".join(b"event: %s\ndata:\n\n" % kind.encode() for kind in KINDS if kind in kinds)
                await self._pause()

    async def _pause(self) -> None:
        if not self._ended:
            await asyncio.sleep(PAUSE_S)
