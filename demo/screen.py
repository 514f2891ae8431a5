"""What the demonstration tells while it runs, on standard error: a line per step, and where the step is."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape

_LINE_EVERY_S = 10.0

Tell = Callable[[str], None]


@dataclass(slots=True)
class Screen:
    """A terminal, or a log where there is none."""

    steps: int
    console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))
    began: float = field(default_factory=time.monotonic)
    step: int = 0

    def begin(self, text: str) -> None:
        """Say that the next step begins."""
        self.step += 1
        self._line(f"[bold]{self.step}/{self.steps}[/]  {escape(text)}")

    def say(self, text: str) -> None:
        """Say what the step found."""
        self._line(f"     {escape(text)}")

    @contextlib.contextmanager
    def busy(self, text: str) -> Iterator[Tell]:
        """Show that something goes on; the function that the block gets says how far it is.

        On a terminal this is one line that changes, elsewhere a line every ten seconds.
        """
        if self.console.is_terminal:
            with self.console.status(escape(text)) as status:
                yield lambda now: status.update(escape(now))
            return
        due = time.monotonic() + _LINE_EVERY_S

        def tell(now: str) -> None:
            nonlocal due
            if time.monotonic() >= due:
                due = time.monotonic() + _LINE_EVERY_S
                self.say(f"… {now}")

        yield tell

    def _line(self, text: str) -> None:
        elapsed_s = time.monotonic() - self.began
        self.console.print(f"[dim]{elapsed_s:4.0f} s[/]  {text}", soft_wrap=True)
