"""What a failed call is answered with: a canonical code and a message, as in gRPC."""

from enum import IntEnum

MESSAGE_LIMIT = 1024
"""Characters of a message that reach the client; the rest is cut."""


class Code(IntEnum):
    """The canonical status codes. gRPC and TensorFlow number them alike."""

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
    """A call, or the load of a version, that failed for a reason the client is told.

    Args:
        code: the status code of the answer.
        message: the whole message; `cut` shortens it for the wire.
    """

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"


def cut(message: str) -> str:
    """Shorten a message to what is sent: `MESSAGE_LIMIT` characters and a mark that there was more."""
    return message if len(message) <= MESSAGE_LIMIT else f"{message[:MESSAGE_LIMIT]}...TRUNCATED"
