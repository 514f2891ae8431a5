"""Print lines of a command: text from outside is escaped, and no encoding of the terminal is an error."""

import os
import sys
from contextlib import suppress
from typing import TextIO

from schemas.errors import PermanentError
from schemas.text import ascii_json, escaped

_STDOUT, _STDERR = 1, 2


class OutputError(PermanentError):
    """Standard output cannot be written, for example because the disk is full."""


def prepare() -> None:
    """Make all standard streams usable.

    One that is closed becomes an empty one: a file or socket would get its number otherwise, and be written
    into. Standard output replaces what its encoding cannot express, as standard error does.
    """
    for number in (0, _STDOUT, _STDERR):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    if sys.stdout is None:
        sys.stdout = os.fdopen(_STDOUT, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(_STDERR, "w", closefd=False)
    if hasattr(sys.stdout, "reconfigure"):  # not while a test captures it
        # Also where Python would print the bytes of a name as they are, as in the locale C.
        sys.stdout.reconfigure(errors="backslashreplace")


def print_line(text: object = "") -> None:
    """Print one line on standard output, escaped; raises OutputError."""
    print_raw(escaped(text))


def print_error(text: object) -> None:
    """Print one line on standard error, escaped; it is lost if it cannot be written."""
    with suppress(OSError):
        _write(sys.stderr, escaped(text))


def print_json(value: object) -> None:
    """Print a value as one line of JSON in ASCII; raises OutputError."""
    print_raw(ascii_json(value))


def print_raw(text: str) -> None:
    """Print text in which everything from outside is escaped already, for example in colours.

    Raises:
        OutputError: It cannot be written.
        BrokenPipeError: The reader of the pipe has exited.
    """
    try:
        _write(sys.stdout, text)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write to standard output: {error.strerror}") from None


def discard_output() -> None:
    """Write nothing more to standard output, not even what is buffered: its end would be another error."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _write(stream: TextIO, line: str) -> None:
    # Flushed, because a pipe is block-buffered: its reader would see nothing for minutes.
    stream.write(f"{line}\n")
    stream.flush()
