"""Progress of the demonstration on standard error: a line per step, and the progress within it."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape

_LINE_EVERY_S = 10.0

Update = Callable[[str], None]


@dataclass(slots=True)
class Screen:
    """Prints to a terminal, or to a log if standard error is not a terminal."""

    steps: int
    console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))
    started_at: float = field(default_factory=time.monotonic)
    step: int = 0

    def start_step(self, text: str) -> None:
        """Print the heading of the next step."""
        self.step += 1
        self._line(f"[bold]{self.step}/{self.steps}[/]  {escape(text)}")

    def print(self, text: str) -> None:
        """Print a line below the heading of the step."""
        self._line(f"     {escape(text)}")

    def highlight(self, text: str) -> None:
        """Print a line that is to be found again, such as an address: bold, between empty lines."""
        self.console.print(f"\n       [bold]{escape(text)}[/]\n", soft_wrap=True)

    @contextlib.contextmanager
    def progress(self, text: str) -> Iterator[Update]:
        """Show progress during a block, which gets a function that updates the text.

        A terminal has one line that changes, a log gets at most one line every ten seconds.
        """
        if self.console.is_terminal:
            with self.console.status(escape(text)) as status:
                yield lambda now: status.update(escape(now))
            return
        due = time.monotonic() + _LINE_EVERY_S

        def update(now: str) -> None:
            nonlocal due
            if time.monotonic() >= due:
                due = time.monotonic() + _LINE_EVERY_S
                self.print(f"… {now}")

        yield update

    def _line(self, text: str) -> None:
        # soft_wrap: rich would otherwise break long lines at 80 columns in a log.
        elapsed_s = time.monotonic() - self.started_at
        self.console.print(f"[dim]{elapsed_s:4.0f} s[/]  {text}", soft_wrap=True)
