"""Status codes and errors of calls, as in gRPC."""

from enum import IntEnum

MAX_MESSAGE_CHARS = 1024
"""Maximum characters of a message sent to the client; longer ones are truncated."""


class Code(IntEnum):
    """The canonical status codes; gRPC and TensorFlow use the same numbers."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class ServingError(Exception):
    """A failed call or load, with the status that the client receives.

    Args:
        code: status code of the response.
        message: full message; `truncate` shortens it for the wire.
    """

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"


def truncate(message: str) -> str:
    """Return the message, shortened to `MAX_MESSAGE_CHARS` characters and marked if it is longer."""
    return message if len(message) <= MAX_MESSAGE_CHARS else f"{message[:MAX_MESSAGE_CHARS]}...TRUNCATED"
