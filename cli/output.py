"""Print lines of a command: text from outside is escaped, and no encoding of the terminal is an error."""

import sys
from typing import TextIO

from schemas.text import ascii_json, escaped


def prepare() -> None:
    """Let standard output replace what its encoding cannot express, as standard error does."""
    if hasattr(sys.stdout, "reconfigure"):  # not while a test captures it
        # Also where Python would print the bytes of a name as they are, as in the locale C.
        sys.stdout.reconfigure(errors="backslashreplace")


def print_line(text: object = "") -> None:
    """Print one line on standard output, escaped."""
    _write(sys.stdout, escaped(text))


def print_error(text: object) -> None:
    """Print one line on standard error, escaped."""
    _write(sys.stderr, escaped(text))


def print_json(value: object) -> None:
    """Print a value as one line of JSON in ASCII."""
    _write(sys.stdout, ascii_json(value))


def print_raw(text: str) -> None:
    """Print text in which everything from outside is escaped already, for example in colours."""
    _write(sys.stdout, text)


def _write(stream: TextIO, line: str) -> None:
    # Flushed, because a pipe is block-buffered: its reader would see nothing for minutes.
    stream.write(f"{line}\n")
    stream.flush()
