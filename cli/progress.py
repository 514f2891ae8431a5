"""Progress of long steps: a bar on a terminal, otherwise a line every few seconds."""

import sys
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from cli.output import print_error

_SLOW_S = 2.0
_LINE_EVERY_S = 5.0


@dataclass(slots=True)
class _Step:
    name: str
    total: int
    done: int = 0
    started_at: float = field(default_factory=time.monotonic)
    printed_at: float = field(default_factory=time.monotonic)


class Bars:
    """Progress of a training as rich bars on standard error."""

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415  # only long commands load it
        from rich.progress import (  # noqa: PLC0415  # as above
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        self._terminal = sys.stderr.isatty()
        self._bars = Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=not self._terminal,  # in a log, control sequences would be noise
        )
        self._step: _Step | None = None
        self._task = self._bars.add_task("", total=None, visible=False)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish()
        self._bars.stop()

    def start(self, step: str, total: int) -> None:
        """Start a step and finish the one before."""
        self._finish()
        self._step = _Step(step, total)
        self._task = self._bars.add_task(step, total=total)
        self._print(f"{step} …")

    def advance(self, count: int = 1) -> None:
        """Add to the number of finished items."""
        self._bars.advance(self._task, count)
        if (step := self._step) is None:
            return
        step.done += count
        if time.monotonic() - step.printed_at > _LINE_EVERY_S:
            step.printed_at = time.monotonic()
            self._print(f"{step.name}: {step.done} of {step.total}")

    def _finish(self) -> None:
        if (step := self._step) is None:
            return
        took_s = time.monotonic() - step.started_at
        if took_s > _SLOW_S:
            self._print(f"{step.name}: {step.total} in {took_s:.1f} s")
        # A step may end early, for example from the cache: its bar is shown as complete.
        self._bars.update(self._task, completed=step.total)
        self._step = None

    def _print(self, line: str) -> None:
        """Print a line if there is no terminal for bars."""
        if not self._terminal:
            print_error(line)


def load_tensorflow_aloud() -> None:
    """Import TensorFlow, which takes seconds, and print a line before it."""
    from cloud.modeling.load_tensorflow import load_tensorflow  # noqa: PLC0415  # only for commands that use it

    print_error("loading TensorFlow …")
    load_tensorflow()
