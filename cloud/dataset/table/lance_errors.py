"""What Lance's errors mean, known only by their texts."""

import re

from schemas.errors import TransientError

# Lance appends the position in its Rust source, and sometimes a backtrace on further lines.
_RUST_SOURCE = re.compile(r"(, \S+\.rs:\d+:\d+.*|\n.*)", re.DOTALL)


_BAD_QUERY = re.compile(
    "Invalid user input: (Schema error|Error parsing|Error during planning|Error resolving|The filter)"
)


_BAD_FILE = re.compile("Invalid user input|Not found: .*data|fill whole buffer|orrupt|UTF-8")


class VersionRemovedError(TransientError):
    """The version that is read was removed meanwhile; the newest one can be read."""


def lance_message(error: Exception) -> str:
    """Return Lance's message without the position in its source."""
    return _RUST_SOURCE.sub("", str(error))


def is_bad_query(error: Exception) -> bool:
    """Return True if the SQL condition or a column name is invalid."""
    # Lance calls a damaged file invalid input, too.
    return _BAD_QUERY.search(str(error)) is not None


def is_damaged_file(error: Exception) -> bool:
    """Return True if a file of the table is missing or damaged."""
    return _BAD_FILE.search(str(error)) is not None


def is_full_disk(error: Exception) -> bool:
    """Return True if there was no space to write."""
    return "No space left" in str(error)
