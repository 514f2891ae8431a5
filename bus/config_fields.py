"""Check the fields of a configuration, more strictly than those of messages.

A misspelt name must not become a default.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct, inspect

from schemas.contract.published import readable
from schemas.errors import GleanerError
from schemas.suggest import did_you_mean


def problem(fields: Mapping[str, Any], kind: type[Struct]) -> str | None:
    """Return what is wrong with the names in a configuration, or a text that is empty; None if nothing is.

    Also in tables that are messages on the wire, such as the harvest rules, whose readers ignore unknown
    fields.

    Args:
        fields: As TOML has them.
        kind: Type of the configuration.
    """
    return next(_problems(fields, inspect.type_info(kind), "$"), None)


def reason(error: Exception) -> str:
    """Return an error of msgspec in words for people, without the guards that only the program needs."""
    return readable(error)


def _problems(value: Any, kind: inspect.Type, place: str) -> Iterator[str]:
    if value == "":
        yield f"empty text - at `{place}`; leave the field out, or give it a value"
    if isinstance(value, Mapping):
        if (struct := _inside(kind, inspect.StructType)) is not None:
            yield from _problems_of_table(value, struct, place)
        elif (table := _inside(kind, inspect.DictType)) is not None:
            for name, one in value.items():
                yield from _problems(one, table.value_type, f"{place}.{name}")
    elif isinstance(value, list | tuple):
        items = _inside(kind, inspect.VarTupleType) or _inside(kind, inspect.ListType)
        for number, one in enumerate(value if items is not None else ()):
            yield from _problems(one, items.item_type, f"{place}[{number}]")


def _problems_of_table(fields: Mapping[str, Any], kind: inspect.StructType, place: str) -> Iterator[str]:
    known: dict[str, inspect.Type] = {field.encode_name: field.type for field in kind.fields}
    if kind.tag_field is not None:  # `v` of a message
        known[kind.tag_field] = inspect.AnyType()
    for name, value in fields.items():
        if name in known:
            yield from _problems(value, known[name], f"{place}.{name}")
        else:
            where = "" if place == "$" else f" in the table [{place.removeprefix('$.')}]"
            yield f"unknown field `{name}`{where}{did_you_mean(name, known)}"


def _inside(kind: inspect.Type, wanted: type[Any]) -> Any:
    """Return the type of this kind inside annotations and unions, None without one."""
    if isinstance(kind, wanted):
        return kind
    if isinstance(kind, inspect.Metadata):
        return _inside(kind.type, wanted)
    if isinstance(kind, inspect.UnionType):
        return next((found for one in kind.types if (found := _inside(one, wanted)) is not None), None)
    return None


def convert(fields: Mapping[str, Any], kind: type[Struct]) -> Any:
    """Return the configuration with these fields.

    Raises:
        ValueError: A field is unknown, empty, of another type or out of its range; the text has its place.
    """
    if (found := problem(fields, kind)) is not None:
        raise ValueError(found)
    try:
        return msgspec.convert(fields, kind)
    except (msgspec.ValidationError, GleanerError) as error:  # the second from a check of the class itself
        raise ValueError(reason(error)) from None
