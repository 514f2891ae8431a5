"""What all messages have in common."""

from msgspec import Struct

VERSION = 1


# Defaults are not written, so that a field added later does not change messages that do not use it.
class Message(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="v", tag=VERSION):
    """Base of all messages: adds the field `v` with the version of the contract."""
