"""Errors by what the caller should do: retry, set aside, or stop.

`TransientError` means that the same call may succeed later. `PermanentError` means that this message or
request never will, while others are unaffected. Any other exception stops the component.
"""

from typing import Literal

Code = Literal["malformed-message", "unsupported-version", "too-large"]

DECODE_ERRORS = (ValueError, RecursionError)
"""Raised by msgspec for bytes that are not a value of a type: also invalid UTF-8, or nested too deeply."""


class GleanerError(Exception):
    """An error that reads as one sentence: what happened, with the value, and what to do.

    Two forms, the second only where a value has an expected form:

        TrainingError("cannot train: no labelled photos", hint="import some with 'gleaner cloud import DIR'")
        ConfigError("port", expected="a number from 1 to 65535", got=0)

    Args:
        subject: The sentence; or, with `expected`, what has the wrong value.
        expected: The expected form.
        got: What was found instead.
        hint: What to do about it, for example a command to run.
    """

    def __init__(
        self, subject: str, *, expected: str | None = None, got: object = None, hint: str | None = None
    ) -> None:
        super().__init__(subject, expected, got, hint)  # all of them, for the repr in a traceback
        self.subject = subject
        self.expected = expected
        self.got = got
        self.hint = hint

    def __str__(self) -> str:
        sentence = str(self.subject)  # plain also where the subject is a translatable sentence
        if self.expected is not None:
            sentence = f"{sentence}: expected {self.expected}, got {self.got}"
        return sentence if self.hint is None else f"{sentence}; {self.hint}"


class TransientError(GleanerError):
    """The same call may succeed later: keep the work and retry."""


class PermanentError(GleanerError):
    """This work can never succeed: set it aside and continue with the next."""


class TopicError(PermanentError):
    """A topic, or a name in one, that does not follow the contract."""


class CodecError(PermanentError):
    """Bytes that are not a valid message of their topic.

    Args:
        code: Rejection code of the contract: `malformed-message`, `unsupported-version` or `too-large`.
        photo_id: The photo's id where it could still be read, so that the sender can be answered.
    """

    def __init__(
        self,
        subject: str,
        *,
        expected: str | None = None,
        got: object = None,
        code: Code,
        photo_id: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(subject, expected=expected, got=got, hint=hint)
        self.code = code
        self.photo_id = photo_id


def first_cause(error: BaseException) -> BaseException:
    """Return the first error inside nested exception groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
