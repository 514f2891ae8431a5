"""Rules of cli/output.py and bus/log.py: what happens where nothing can be printed or logged."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import structlog

from bus import log
from bus.files import cache_folder
from cli import options, output
from schemas.errors import PermanentError
from tests.conftest import ROOT

FULL = Path("/dev/full")


def test_output_on_a_full_disk_is_one_sentence(monkeypatch):
    """Nobody needs a traceback for that; an error message that cannot be printed is lost."""
    with FULL.open("w") as full, FULL.open("w") as also_full:
        monkeypatch.setattr(sys, "stdout", full)
        monkeypatch.setattr(sys, "stderr", also_full)
        with pytest.raises(output.OutputError, match="cannot write to standard output: No space left"):
            output.print_line("x")
        output.print_error("x")
        for stream in (full, also_full):  # what is buffered would be written again when they are closed
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def test_a_log_on_a_full_disk_loses_lines_alone(monkeypatch):
    """A service continues: its work is worth more than its log."""
    with FULL.open("w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        log.configure("info", json=True)
        structlog.get_logger().info("lost")
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())


def test_a_command_runs_with_all_streams_closed():
    """They become empty ones, so that no file or socket gets the number of standard output."""
    program = (
        "import os, cli.main; print(cli.main.main(['version'])); os.fstat(2); open(9, 'w').write('done')"
    )
    shell = '"$0" -c "$1" 9>&1 <&- >&- 2>&-'
    done = subprocess.run(
        ["/bin/sh", "-c", shell, sys.executable, program],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert (done.returncode, done.stdout) == (0, "done")


def test_a_user_without_a_home_can_run_commands(monkeypatch):
    """As in containers that run under any number: only what needs the folder is an error."""

    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder.default_cache() == Path("/nonexistent/.cache/gleaner")
    assert options.default_state("device") == "/nonexistent/.local/state/gleaner/device"
    with pytest.raises(PermanentError, match="~nobody-here/x has no home directory; write the whole path"):
        cache_folder.expanded("~nobody-here/x")
