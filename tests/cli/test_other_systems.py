"""A system whose Python lacks modules of Unix, such as Windows."""

import subprocess
import sys

import pytest

from tests.conftest import DEADLINE_S, ROOT

_WITHOUT = """
import sys
sys.modules["fcntl"] = sys.modules["termios"] = None  # as where Python has none
from cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("words", ["send x.jpg", "device --camera drawn", "cloud list", "doctor", "edge"])
def test_a_command_says_which_systems_it_runs_on(words):
    """One sentence, and no advice to install a package of that name."""
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT, *words.split()],
        cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "its Python has no module 'fcntl'; Gleaner is made for Linux; on Windows" in done.stderr
