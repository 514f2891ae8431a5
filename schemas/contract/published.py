"""Make msgspec's JSON Schemas fit for validators and code generators of other languages.

What a message may be is unchanged; three things are written so that every implementation takes them:

- patterns without lookahead: RE2, which Go and others use, has none, and a `$` of JSON Schema needs none;
- a title for each enumeration and nullable field, from which generators name their types;
- bytes: base64 text in JSON, and the type that a msgpack decoder returns for binary data.
"""

import re
from collections.abc import Mapping

_MATCHING = re.compile(r"`str` matching regex '([^']*)'")
_HEX = re.compile(r"\^\[0-9a-f\]\{(\d+)\}\$")
_FORMS = {
    "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$": "a DNS label (1 to 63 of a-z, 0-9 and inner hyphens)",
    "^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$": "1 to 63 letters, digits, `_`, `.` or `-`",
    "^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$": "a host name or address",
    "^[1-9][0-9]{1,4}x[1-9][0-9]{1,4}$": "WIDTHxHEIGHT, such as 1280x960",
    "^(refuse|drop-oldest)$": "refuse or drop-oldest",
    "^[^ ]+:[0-9]{1,5}$": "HOST:PORT",
    "^https?://[^/ ?#@]+/?$": "an http:// or https:// address without a path",
    "^https?://[^ ]+[^/ ]$": "an http:// or https:// URL without a slash at its end",
}
"""Patterns of messages and configurations, in words."""
_RUNTIME_END = r"$(?!\n)"
_QUOTED_END = r"$(?!\\n)"
"""The same inside an error, which quotes the pattern as Python does."""
_BYTES: dict[str, object] = {
    "title": "Binary",
    "description": "bytes as a msgpack decoder returns them",
    "not": {"anyOf": [{"type": name} for name in ("string", "number", "boolean", "null", "array")]},
}
"""Bytes are an object, or a type that JSON Schema does not know: it has no name for them."""


def published(name: str, schema: Mapping[str, object]) -> dict[str, object]:
    """Return the definition of a message or of a table inside one.

    Args:
        name: Its name, for example `Result`.
        schema: As msgspec writes it.
    """
    rewritten = _rewrite(schema)
    fields = rewritten.get("properties", {})
    assert isinstance(fields, dict)
    titled = {field: _titled(name, field, rules) for field, rules in fields.items()}
    return rewritten | ({"properties": titled} if titled else {})


def _rewrite(schema: Mapping[str, object]) -> dict[str, object]:
    """Return a schema with portable patterns and bytes, at every depth."""
    rewritten = {key: _rewrite_value(value) for key, value in schema.items()}
    if isinstance(pattern := rewritten.get("pattern"), str):
        rewritten["pattern"] = portable(pattern)
    if rewritten.get("contentEncoding") == "base64":
        about = {key: rewritten.pop(key) for key in ("description", "default") if key in rewritten}
        return about | {"anyOf": [rewritten, _BYTES]}
    if isinstance(text := rewritten.get("description"), str):
        rewritten["description"] = " ".join(text.split())
    return rewritten


def _rewrite_value(value: object) -> object:
    if isinstance(value, dict):
        return _rewrite(value)
    return [_rewrite_value(item) for item in value] if isinstance(value, list) else value


def readable(error: object) -> str:
    """Return an error of msgspec in words for people: forms instead of patterns."""
    return _MATCHING.sub(lambda found: _form(found[1]) or found[0], portable(str(error)))


def _form(pattern: str) -> str | None:
    digits = _HEX.fullmatch(pattern)
    return f"{digits[1]} hexadecimal digits in lower case" if digits else _FORMS.get(pattern)


def portable(pattern: str) -> str:
    """Return a pattern without Python's guard: its `$` alone also matches before a last line break."""
    for guard in (_RUNTIME_END, _QUOTED_END):
        pattern = pattern.replace(guard, "$")
    return pattern


def _titled(name: str, field: str, rules: dict[str, object]) -> dict[str, object]:
    """Return the rules of a field, with a title if a generator would otherwise number its type."""
    if "enum" not in rules and "anyOf" not in rules:
        return rules
    title = name + "".join(word.capitalize() for word in field.split("_"))
    titled = {"title": title} | rules
    if isinstance(choices := rules.get("anyOf"), list):
        titled["anyOf"] = [_titled_choice(title, choice) for choice in choices]
    return titled


def _titled_choice(title: str, choice: dict[str, object]) -> dict[str, object]:
    if "enum" in choice or choice.get("type") == "object":
        return {"title": f"{title}Value"} | choice
    return choice
