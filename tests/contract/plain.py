"""A reader that uses the published JSON Schema and plain `msgpack`, but no code of this project."""

import base64
import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import msgpack


def read(payload: bytes, topic: str, schemas: Path) -> dict[str, Any]:
    """Return the fields of a payload, with bytes as base64, after validating them.

    Args:
        payload: Received payload.
        topic: Its topic name, `gleaner/v1/<kind>/…`.
        schemas: Folder with `<kind>.schema.json`.
    """
    kind = topic.split("/")[2]
    fields = json.loads(payload) if payload[:1] == b"{" else msgpack.unpackb(payload)
    fields = {name: _text(value) for name, value in fields.items()}
    _validator(schemas / f"{kind}.schema.json").validate(fields)
    return fields


@cache
def _validator(schema: Path) -> jsonschema.Draft202012Validator:
    """Return a validator of a schema, which is read and checked once for all messages."""
    content = json.loads(schema.read_text())
    jsonschema.Draft202012Validator.check_schema(content)
    return jsonschema.Draft202012Validator(content)


def _text(value: object) -> object:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value
