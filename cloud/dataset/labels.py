"""What people and teachers say of photos, as values that are held against the contract."""

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias, get_type_hints

import msgspec

from schemas import messages
from schemas.errors import PermanentError

Judge: TypeAlias = Literal["human", "teacher"]
JUDGES: tuple[Judge, ...] = ("human", "teacher")
Who = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


def check(value: object, subject: str) -> None:
    """Hold every field of a dataclass against its annotation, which is the wire's own.

    Raises:
        PermanentError: A field has another type or is out of its range.
    """
    for name, hint in get_type_hints(type(value), include_extras=True).items():
        content = getattr(value, name)
        try:
            msgspec.convert(content, hint)
        except msgspec.ValidationError as error:
            got = f"{len(content)} bytes" if isinstance(content, bytes) else repr(content)[:80]
            expected = str(error).removeprefix("Expected ")
            raise PermanentError(f"{name} of {subject}", expected=expected, got=got) from None


@dataclass(frozen=True, kw_only=True, slots=True)
class Label:
    """What a person or a teacher model says that a photo shows.

    Args:
        photo_id: 32 hexadecimal digits; the sample itself may still be on its way.
        label: Name of the class, or `NEITHER`.
        by: Who or which model says so.
        at_ms: When it was said, UTC. Of two labels of the same judge the later one holds.
        judge: A person (`human`) or a model (`teacher`).

    Raises:
        PermanentError: A field is out of its range.
    """

    photo_id: messages.PhotoId
    label: messages.Label
    by: Who
    at_ms: messages.Milliseconds
    judge: Judge = "human"

    def __post_init__(self) -> None:
        check(self, f"label for {self.photo_id!r:.40}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Withdrawal:
    """What a teacher model says that takes a teacher's label back and gives none.

    The stored row then says who and when, without a label, so that nothing older comes back.

    Args:
        photo_id: 32 hexadecimal digits.
        by: Which model says so.
        at_ms: When it was said, UTC; a label that was given later stays.

    Raises:
        PermanentError: A field is out of its range.
    """

    photo_id: messages.PhotoId
    by: Who
    at_ms: messages.Milliseconds

    def __post_init__(self) -> None:
        check(self, f"withdrawal for {self.photo_id!r:.40}")


Word: TypeAlias = Label | Withdrawal
"""What a person or a teacher says of a photo."""
