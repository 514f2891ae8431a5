"""Messages on their way to the client."""

from edge.modelserver.status import MESSAGE_LIMIT, cut


def test_messages_are_cut_at_1024_characters() -> None:
    """A message of 1024 characters passes whole; a longer one ends in a mark."""
    assert cut("x" * MESSAGE_LIMIT) == "x" * 1024
    assert cut("x" * 1025) == "x" * 1024 + "...TRUNCATED"
