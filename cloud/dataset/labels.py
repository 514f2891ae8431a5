"""Labels from people and teacher models as validated values."""

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias, get_type_hints

import msgspec

from schemas import field_types
from schemas.class_names import class_name
from schemas.contract.published import readable
from schemas.errors import PermanentError

Annotator: TypeAlias = Literal["human", "device", "teacher"]
ANNOTATORS: tuple[Annotator, ...] = ("human", "device", "teacher")
AnnotatorName = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


def validate(value: object, subject: str) -> None:
    """Check every field of a dataclass against its annotation, which is that of the wire message.

    Raises:
        PermanentError: A field has the wrong type or is out of range.
    """
    for name, hint in get_type_hints(type(value), include_extras=True).items():
        content = getattr(value, name)
        try:
            msgspec.convert(content, hint)
        except msgspec.ValidationError as error:
            got = f"{len(content)} bytes" if isinstance(content, bytes) else repr(content)[:80]
            expected = readable(error).removeprefix("Expected ")
            raise PermanentError(f"{name} of {subject}", expected=expected, got=got) from None


def check_class_name(text: str, subject: str) -> None:
    """Refuse a text that is not a class name as it is; `class_name` brings one into that form.

    Raises:
        PermanentError: It has other characters than a class name, or too many.
    """
    name = class_name(text)
    if name != text:
        raise PermanentError(f"label of {subject}", expected=f"the class name {name!r}", got=ascii(text))


@dataclass(frozen=True, kw_only=True, slots=True)
class Label:
    """A photo's class according to a human, the device that took it, or a teacher model.

    Args:
        photo_id: 32 hex digits; the sample itself may arrive later.
        label: Name of the class, or `NEITHER`.
        by: Name of the human or the model.
        at_ms: When it was given, UTC. Of two labels by the same kind of annotator the later one counts.
        dated: Whether its sender stated the time. Else `at_ms` is the arrival, a later one at each
            redelivery: it does not replace a label by somebody else.
        annotator: Kind of the annotator: `human`, `device` or `teacher`.
        node: Edge node of the camera whose photo it is meant for; None for any photo.
        device: That camera. A label for the photo of another one, or for an imported photo, is refused.

    Raises:
        PermanentError: A field is out of range.
    """

    photo_id: field_types.PhotoId
    label: field_types.Label
    by: AnnotatorName
    at_ms: field_types.Milliseconds
    dated: bool = True
    annotator: Annotator = "human"
    node: field_types.Name | None = None
    device: field_types.Name | None = None

    def __post_init__(self) -> None:
        subject = f"label for {self.photo_id!r:.40}"
        validate(self, subject)
        check_class_name(self.label, subject)


@dataclass(frozen=True, kw_only=True, slots=True)
class Withdrawal:
    """Removal of an earlier teacher's label by a teacher model that abstains.

    The stored row keeps `by` and `at_ms` without a label, so that an older label cannot be stored again.

    Args:
        photo_id: 32 hex digits.
        by: Name of the model that removes it.
        at_ms: When, UTC; a later label stays.

    Raises:
        PermanentError: A field is out of range.
    """

    photo_id: field_types.PhotoId
    by: AnnotatorName
    at_ms: field_types.Milliseconds

    def __post_init__(self) -> None:
        validate(self, f"withdrawal for {self.photo_id!r:.40}")


LabelChange: TypeAlias = Label | Withdrawal
