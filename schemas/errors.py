"""The three questions an error answers: try again, put aside, or stop.

`TransientError` means that the same call may succeed later. `PermanentError` means that this one
message or request never will, and others are not affected. Every other exception stops the component.
"""

from typing import Literal

Code = Literal["malformed-message", "unsupported-version", "too-large"]


class GleanerError(Exception):
    """An error with its facts; the sentence is built from them.

    Args:
        subject: What the error is about, for example `topic gleaner/v1/x`.
        expected: What would have been right.
        got: What was found instead.
    """

    def __init__(self, subject: str, *, expected: str, got: object) -> None:
        super().__init__(subject, expected, got)
        self.subject = subject
        self.expected = expected
        self.got = got

    def __str__(self) -> str:
        return f"{self.subject}: expected {self.expected}, got {self.got}"


class TransientError(GleanerError):
    """The same call may succeed later: keep the work and try again."""


class PermanentError(GleanerError):
    """This work can never succeed: put it aside and go on with the next."""


class TopicError(PermanentError):
    """A topic or a name in it that is not of the contract."""


class CodecError(PermanentError):
    """Bytes that are no message of the topic they came on.

    Args:
        code: Rejection code of the contract: `malformed-message`, `unsupported-version` or `too-large`.
        photo_id: The photo's id where it could still be read, so that its sender gets an answer.
    """

    def __init__(
        self, subject: str, *, expected: str, got: object, code: Code, photo_id: str | None = None
    ) -> None:
        super().__init__(subject, expected=expected, got=got)
        self.code = code
        self.photo_id = photo_id
