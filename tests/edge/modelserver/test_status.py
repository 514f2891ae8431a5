"""Messages as they are sent to the client."""

from edge.modelserver.status import MAX_MESSAGE_CHARS, truncate


def test_messages_are_truncated_at_1024_characters() -> None:
    """A message of 1024 characters is unchanged; a longer one is truncated and marked."""
    assert truncate("x" * MAX_MESSAGE_CHARS) == "x" * 1024
    assert truncate("x" * 1025) == "x" * 1024 + "...TRUNCATED"
