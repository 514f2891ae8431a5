"""Exclusive file locks between real processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bus.files.file_lock import LockHeldError, exclusive_lock
from tests.conftest import DEADLINE_S, ROOT

# Takes the lock, prints a line, and keeps the lock until its standard input is closed.
_HOLDER = """
import sys
from pathlib import Path
from bus.files.file_lock import exclusive_lock
with exclusive_lock(Path(sys.argv[1]), holder=sys.argv[2]):
    print("locked", flush=True)
    sys.stdin.read()
"""

# Takes the lock and starts a child that inherits its descriptor, then ends.
_PARENT = """
import subprocess, sys
from pathlib import Path
from bus.files.file_lock import exclusive_lock
child = [sys.executable, "-c", "import sys; sys.stdin.read()"]
with exclusive_lock(Path(sys.argv[1]), holder="parent") as descriptor:
    subprocess.Popen(child, pass_fds=[descriptor], stdout=subprocess.DEVNULL)
    print("locked", flush=True)
"""


@contextmanager
def process_with(script: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a script until its standard input is closed; entered when it has the lock."""
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        try:
            yield process
        finally:
            process.communicate(timeout=DEADLINE_S)


@pytest.fixture
def lock(tmp_path) -> Path:
    return tmp_path / "lock"


def is_free(lock: Path) -> bool:
    try:
        with exclusive_lock(lock):
            return True
    except LockHeldError:
        return False


def test_a_held_lock_raises_with_the_holders_text(lock):
    """While another process holds the lock, LockHeldError contains the text that it wrote."""
    with process_with(_HOLDER, str(lock), "a holder, pid 1"):
        with pytest.raises(LockHeldError) as caught, exclusive_lock(lock):
            pass
        assert caught.value.holder == "a holder, pid 1"
    assert is_free(lock)


def test_a_new_holder_replaces_the_text(lock):
    """The text of an earlier, longer holder does not remain."""
    with exclusive_lock(lock, holder="a long text of the first holder"):
        pass
    with process_with(_HOLDER, str(lock), "second"):
        with pytest.raises(LockHeldError) as caught, exclusive_lock(lock):
            pass
        assert caught.value.holder == "second"


def test_the_kernel_releases_the_lock_of_a_killed_process(lock):
    """A lock whose process was killed is free."""
    with process_with(_HOLDER, str(lock), "killed") as process:
        process.send_signal(signal.SIGKILL)
        process.wait(DEADLINE_S)
        assert is_free(lock)


def test_a_waiting_process_gets_the_lock_when_it_is_released(lock):
    """With a timeout, a second process waits until the first releases the lock."""
    with process_with(_HOLDER, str(lock), "first") as process:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
        with exclusive_lock(lock, timeout_s=DEADLINE_S):
            pass


def test_a_lock_that_is_not_released_in_time_raises(lock):
    """After `timeout_s` a lock that is still held raises LockHeldError."""
    with process_with(_HOLDER, str(lock), "first"):
        with pytest.raises(LockHeldError), exclusive_lock(lock, timeout_s=0.05):
            pass
        assert not is_free(lock)


def test_a_child_keeps_an_inherited_lock(lock):
    """A child process that inherited the descriptor keeps the lock after its parent has ended."""
    with process_with(_PARENT, str(lock)) as parent:
        parent.wait(DEADLINE_S)
        assert not is_free(lock)
        assert parent.stdin is not None
        parent.stdin.close()  # the child reads the same standard input, and ends
        parent.stdin = None
        with exclusive_lock(lock, timeout_s=DEADLINE_S):
            pass


def test_the_descriptor_is_not_inherited_by_default(lock):
    """A child process without the descriptor does not keep the lock."""
    with exclusive_lock(lock) as descriptor:
        assert not os.get_inheritable(descriptor)
        child = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
        )
    try:
        assert is_free(lock)
    finally:
        child.communicate(timeout=DEADLINE_S)
