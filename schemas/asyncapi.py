"""Generate the published contract: an AsyncAPI 3 document, and a JSON Schema for each message."""

import json

import msgspec

from schemas.messages import Message
from schemas.topics import TOPICS, Topic

_TITLE = "Gleaner"
_MSGPACK = "application/x-msgpack"
_JSON = "application/json"
_BINDING_VERSION = "0.2.0"


def documents() -> dict[str, str]:
    """Return the generated texts by file name: `asyncapi.json` and a `<kind>.schema.json` for each topic."""
    files = {"asyncapi.json": _text(asyncapi())}
    for topic in TOPICS:
        files[f"{topic.kind}.schema.json"] = _text(json_schema(topic.message))
    return files


def json_schema(message: type[Message]) -> dict[str, object]:
    """Return the JSON Schema (2020-12) of one message."""
    schema = msgspec.json.schema(message)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def asyncapi() -> dict[str, object]:
    """Return the AsyncAPI 3.0 document of all topics, as values for `json.dumps`."""
    _, components = msgspec.json.schema_components(
        [topic.message for topic in TOPICS], ref_template="#/components/schemas/{name}"
    )
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": _TITLE,
            "version": "1",
            "description": "The MQTT topics through which all components communicate.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": _JSON,
        "channels": {topic.kind: _channel(topic) for topic in TOPICS},
        "operations": _operations(),
        "components": {
            "schemas": components,
            "messages": {topic.message.__name__: _message(topic) for topic in TOPICS},
        },
    }


def _channel(topic: Topic[Message]) -> dict[str, object]:
    name = topic.message.__name__
    return {
        "address": topic.pattern,
        "description": f"{topic.flow}{', retained' if topic.retain else ''}",
        "parameters": {
            parameter: {"description": "DNS label: 1 to 63 lower-case letters, digits and inner hyphens"}
            for parameter in topic.names
        },
        "messages": {name: {"$ref": f"#/components/messages/{name}"}},
    }


def _message(topic: Topic[Message]) -> dict[str, object]:
    name = topic.message.__name__
    content_type = _MSGPACK if topic.body == "msgpack" else _JSON
    bare_image = " A bare JPEG or PNG is accepted too." if topic.bare_image else ""
    return {
        "name": name,
        "summary": (topic.message.__doc__ or "").strip().split("\n")[0],
        "description": f"Written as {content_type}. Readers accept msgpack and JSON, with bytes in base64, "
        f"and ignore unknown fields.{bare_image}",
        "contentType": content_type,
        "payload": {"$ref": f"#/components/schemas/{name}"},
        "bindings": {"mqtt": {"bindingVersion": _BINDING_VERSION}},
    }


def _operations() -> dict[str, object]:
    # Per topic and direction; AsyncAPI does not express which component sends, the channel's description
    # does.
    operations: dict[str, object] = {}
    for topic in TOPICS:
        mqtt = {"qos": 1, "retain": topic.retain, "bindingVersion": _BINDING_VERSION}
        for verb, action in (("publish", "send"), ("receive", "receive")):
            operations[f"{verb}-{topic.kind}"] = {
                "action": action,
                "channel": {"$ref": f"#/channels/{topic.kind}"},
                "bindings": {"mqtt": mqtt},
            }
    return operations


def _text(value: dict[str, object]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False) + "\n"
