"""Errors of connections to a broker."""

from schemas.errors import PermanentError, TransientError


class BrokerConnectionError(TransientError):
    """The broker cannot be reached, refuses the client, or the connection was lost.

    Args:
        subject: What failed; with `reason`, usually the broker's address.
        reason: Why, in a few words; appended to the subject.
        hint: What to do about it.
    """

    def __init__(
        self,
        subject: str,
        *,
        reason: str | None = None,
        expected: str | None = None,
        got: object = None,
        hint: str | None = None,
    ) -> None:
        sentence = subject if reason is None else f"{subject}: {reason}"
        super().__init__(sentence, expected=expected, got=got, hint=hint)
        self.reason = str(self) if reason is None else reason


class ProtocolRefusedError(BrokerConnectionError):
    """The broker does not answer this version of MQTT.

    Args:
        explicit: Whether the broker named the reason. A connection that only closes may be that of a proxy,
            as of Docker, whose broker is away.
    """

    def __init__(self, subject: str, *, reason: str, explicit: bool) -> None:
        super().__init__(subject, reason=reason)
        self.explicit = explicit


RIGHTS_HINT = "may this client write and read it?"


class PublishRefusedError(BrokerConnectionError):
    """The broker refuses a message, for example because the client may not write the topic."""


class MessageTooLargeError(PermanentError):
    """A message is larger than a limit of the broker."""


UNPUBLISHED = (BrokerConnectionError, MessageTooLargeError)
"""Errors of `Bus.publish` for a message that did not arrive. A best-effort message is then dropped."""


class BrokerRefusedError(PermanentError):
    """The broker does not let this client in: another password, user or certificate is needed."""
