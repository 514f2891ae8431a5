"""Read values as other encoders write them: integers as floats, base64 in its variants; without I/O.

A malformed trace is read as none.
"""

import math
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import msgspec
import msgspec.inspect

from schemas.field_types import TRACEPARENT

TRACE = "trace"
"""Wire name of the field that may be malformed."""
_TRACEPARENT = re.compile(TRACEPARENT)
_EXACT = 2.0**53  # up to here a double holds every integer; the contract's integers end there as well
_URL_SAFE = str.maketrans("-_", "+/")


def with_integers(value: Any) -> Any:
    """Return a decoded value with each float that is an integer as an int, such as 1e3 and -0.0.

    As JSON Schema has it, an integer is a number without a fraction, however it is written.

    Raises:
        RecursionError: It is nested too deeply.
    """
    if isinstance(value, float):
        return int(value) if abs(value) <= _EXACT and value.is_integer() else value
    return _mapped(value, with_integers)


def with_plain_base64(message: type[msgspec.Struct], fields: dict[str, object]) -> dict[str, object]:
    """Return fields with base64 as RFC 4648 has it; see `plain_base64`."""
    return fields | {
        name: plain_base64(text)
        for name in _binary_fields(message)
        if isinstance(text := fields.get(name), str)
    }


def plain_base64(text: str) -> str:
    """Return base64 in the usual alphabet, with padding and without white space.

    Many encoders break lines after 76 characters, browsers give data URLs, and URLs have `-` and `_`.
    """
    if text[:5].lower() == "data:":
        text = re.sub(r"(?i)^[^,]*;base64,|.*", "", text, count=1, flags=re.DOTALL)
    text = "".join(text.split()).rstrip("=").translate(_URL_SAFE)
    return text + "=" * (-len(text) % 4)


@cache
def _binary_fields(message: type[msgspec.Struct]) -> tuple[str, ...]:
    """Return the wire names of the fields that are bytes."""
    described = msgspec.inspect.type_info(message)
    assert isinstance(described, msgspec.inspect.StructType)
    return tuple(field.encode_name for field in described.fields if _is_binary(field.type))


def _is_binary(kind: msgspec.inspect.Type) -> bool:
    inner = kind.type if isinstance(kind, msgspec.inspect.Metadata) else kind
    return isinstance(inner, msgspec.inspect.BytesType)


def has_nonfinite(value: object) -> bool:
    """Return True if a decoded value contains NaN or an infinity, which JSON cannot express.

    Raises:
        RecursionError: It is nested too deeply.
    """
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, Mapping):
        return any(has_nonfinite(one) for one in value.values())
    return isinstance(value, list) and any(has_nonfinite(one) for one in value)


def without_malformed_trace(fields: dict[str, object]) -> dict[str, object]:
    """Return fields that have a trace, without it if it is no `traceparent` of W3C Trace Context, version 00.

    It may come from anybody's library, and nothing depends on it: no message is refused because of it.
    """
    trace = fields[TRACE]
    if isinstance(trace, str) and _TRACEPARENT.match(trace):
        return fields
    return {name: value for name, value in fields.items() if name != TRACE}


def _mapped(value: object, change: Callable[[object], object]) -> object:
    if isinstance(value, Mapping):
        return {name: change(one) for name, one in value.items()}
    return [change(one) for one in value] if isinstance(value, list) else value
