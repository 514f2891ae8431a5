"""A demonstration that stays, as a person starts it with `make demo ARGS=--stay`, and labels in it."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

PRINTED = re.compile(r"console: (http://\S+)")
LAST = "Ctrl-C stops everything"
LABELS = 20


class Staying:
    """A demonstration that was started; what it prints is read in a thread."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.folder = folder
        with self._table.open("wb") as table:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cli.main", "demo", "--stay", "--out", str(self.out), *words],
                cwd=ROOT, stdout=table, stderr=subprocess.PIPE, text=True, start_new_session=True,
                env=os.environ | {"TMPDIR": str(folder), "PYTHONPATH": str(ROOT)},
            )  # fmt: skip
        self._lines: list[str] = []
        self._ended = False
        self._read = threading.Condition()
        self._reader = threading.Thread(target=self._follow, name="demo output")
        self._reader.start()

    def _follow(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            with self._read:
                self._lines.append(line.rstrip())
                self._read.notify_all()
        with self._read:
            self._ended = True
            self._read.notify_all()

    @property
    def out(self) -> Path:
        """The folder of the report."""
        return self.folder / "out"

    @property
    def work(self) -> Path:
        """The temporary folder of the run."""
        return next(self.folder.glob("gleaner-demo-*"))

    @property
    def _table(self) -> Path:
        return self.folder / "table.txt"

    def rows(self) -> dict[str, str]:
        """Return the rows of the table that it printed, value by name."""
        lines = self._table.read_text("utf-8").splitlines()
        return {line[:28].strip(): line[28:] for line in lines}

    def printed(self, text: str, timeout_s: float) -> str:
        """Return the last line with a text, once it is there.

        Raises:
            RuntimeError: It ended, or did not print it in time.
        """

        def is_there() -> bool:
            return any(text in line for line in self._lines) or self._ended

        with self._read:
            self._read.wait_for(is_there, timeout_s)
            found = [line for line in self._lines if text in line]
        if not found:
            raise RuntimeError(f"the demonstration did not print {text!r}: {self._lines[-20:]}")
        return found[-1]

    def address(self, timeout_s: float) -> str:
        """Return the address that was printed last, which opens the console once."""
        found = PRINTED.search(self.printed("console: http", timeout_s))
        assert found is not None
        return found[1]

    def stop(self) -> int:
        """Press Ctrl-C and return the exit code."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)
        code = self._process.wait()
        self._reader.join()
        if self._process.stderr is not None:
            self._process.stderr.close()
        return code


@contextlib.contextmanager
def staying(*words: str) -> Iterator[Staying]:
    """Run a demonstration that stays for the length of a block."""
    with tempfile.TemporaryDirectory(prefix="gleaner-stay-") as folder:
        demo = Staying(Path(folder), *words)
        try:
            yield demo
        finally:
            demo.stop()


def label_as_the_model_says(page: Any, expect: Any, count: int = LABELS) -> None:
    """Label photos by their keys, each with the model's label; each is on the disk before the next one."""
    for number in range(count):
        shown = page.locator("[data-photo]:visible").first
        model = shown.get_attribute("data-model")
        key = page.locator(f'[data-classes] button[value="{model}"]').get_attribute("data-keys").split()[0]
        page.keyboard.press(key)
        expect(page.locator("[data-given]")).to_have_text(str(number + 1))
