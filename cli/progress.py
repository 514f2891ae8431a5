"""Progress of long steps: a bar on a terminal, a line per step elsewhere."""

import sys
import time
from types import TracebackType
from typing import Self

_SLOW_S = 2.0


class Bars:
    """Implements the training's Progress with rich bars on standard error."""

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415  # only commands that take long load it
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
            disable=not self._terminal,
        )
        self._step: tuple[str, int, float] | None = None
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
        """Begin a step; the one before is over."""
        self._finish()
        self._step = (step, total, time.monotonic())
        self._task = self._bars.add_task(step, total=total)
        if not self._terminal:
            print(f"{step} …", file=sys.stderr, flush=True)

    def advance(self, count: int = 1) -> None:
        """Say that so much more is done."""
        self._bars.advance(self._task, count)

    def _finish(self) -> None:
        if self._step is None:
            return
        step, total, began = self._step
        took_s = time.monotonic() - began
        if not self._terminal and took_s > _SLOW_S:
            print(f"{step}: {total} in {took_s:.1f} s", file=sys.stderr, flush=True)
        self._bars.update(self._task, completed=total)
        self._step = None
