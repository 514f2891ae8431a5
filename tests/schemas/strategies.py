"""Hypothesis strategies for messages, derived from the classes, so that a new field is covered at once."""

import re
from functools import cache
from typing import Any

from hypothesis import strategies as st
from msgspec import inspect

from schemas.messages import Message

_PATTERN_END = r"$(?!\n)"


@cache
def messages(kind: type[Message]) -> st.SearchStrategy[Message]:
    """Return a strategy for all messages of a class that its constraints allow."""
    return _of(inspect.type_info(kind))  # type: ignore[no-any-return]


def _of(kind: Any) -> st.SearchStrategy[Any]:
    if isinstance(kind, inspect.Metadata):
        return _of(kind.type)
    if isinstance(kind, inspect.UnionType):
        return st.one_of(*(_of(choice) for choice in kind.types))
    return _MAKERS[type(kind)](kind)


def _text(kind: inspect.StrType) -> st.SearchStrategy[str]:
    if kind.pattern is not None:
        pattern = re.compile(kind.pattern.removesuffix(_PATTERN_END) + r"\Z", re.ASCII)
        return st.from_regex(pattern, fullmatch=True)
    return st.text(
        st.characters(exclude_categories=["Cs"]),
        min_size=kind.min_length or 0,
        max_size=kind.max_length or 20,
    )


def _struct(kind: inspect.StructType) -> st.SearchStrategy[Any]:
    required = {field.name: _of(field.type) for field in kind.fields if field.required}
    optional = {field.name: _of(field.type) for field in kind.fields if not field.required}
    if "crop" in optional:  # left and top edge before right and bottom
        optional["crop"] = st.sampled_from([None, (0.0, 0.0, 1.0, 1.0), (0.25, 0.5, 0.5, 0.75)])
    return st.fixed_dictionaries(required, optional=optional).map(lambda fields: kind.cls(**fields))


def _dict(kind: inspect.DictType) -> st.SearchStrategy[Any]:
    return st.dictionaries(_of(kind.key_type), _of(kind.value_type), max_size=5)


def _list(kind: inspect.ListType | inspect.VarTupleType) -> st.SearchStrategy[Any]:
    return st.lists(_of(kind.item_type), min_size=kind.min_length or 0, max_size=min(5, kind.max_length or 5))


_MAKERS: dict[type, Any] = {
    inspect.StrType: _text,
    inspect.StructType: _struct,
    inspect.DictType: _dict,
    inspect.ListType: _list,
    inspect.VarTupleType: lambda kind: _list(kind).map(tuple),
    inspect.IntType: lambda kind: st.integers(
        kind.ge if kind.ge is not None else -(2**53), kind.le if kind.le is not None else 2**53
    ),
    inspect.FloatType: lambda kind: st.floats(kind.ge, kind.le, allow_nan=False, allow_infinity=False),
    inspect.BoolType: lambda _: st.booleans(),
    inspect.NoneType: lambda _: st.none(),
    inspect.BytesType: lambda kind: st.binary(min_size=kind.min_length or 0, max_size=200),
    inspect.LiteralType: lambda kind: st.sampled_from(kind.values),
}
