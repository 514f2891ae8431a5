"""Generate the published contract: an AsyncAPI 3 document, and a JSON Schema for each message."""

import json

import msgspec

from schemas.codec import to_json
from schemas.contract.examples import examples_of
from schemas.contract.published import published
from schemas.messages import Message
from schemas.topics import TOPICS, Topic

_TITLE = "Gleaner"
_MSGPACK = "application/x-msgpack"
_JSON = "application/json"
_BINDING_VERSION = "0.2.0"
_ID = "urn:gleaner:v1:{kind}"
_REPLIES = {"photo": "result", "sample": "receipt"}
"""Kind of the topic on which a message is answered; the answer has the same `photo_id`."""
_HAS_PHOTO_ID = ("photo", "result", "sample", "receipt", "feedback")
_SERVERS: dict[str, object] = {
    "local": {
        "host": "127.0.0.1:1883",
        "protocol": "mqtt",
        "protocolVersion": "3.1.1",
        "description": "`gleaner broker`: anonymous, on one machine; MQTT 5 clients are accepted too",
    },
    "site": {
        "host": "{broker}:8883",
        "protocol": "secure-mqtt",
        "protocolVersion": "3.1.1",
        "description": "a broker of a site made by `gleaner provision`: each client has a certificate",
        "variables": {"broker": {"description": "host name of the node's or the cloud's broker"}},
        "security": [{"$ref": "#/components/securitySchemes/certificate"}],
    },
    "lan": {
        "host": "{broker}:1883",
        "protocol": "mqtt",
        "protocolVersion": "3.1.1",
        "description": "a broker with user names and passwords",
        "variables": {"broker": {"description": "host name or address of the broker"}},
        "security": [{"$ref": "#/components/securitySchemes/password"}],
    },
}
_SECURITY: dict[str, object] = {
    "certificate": {"type": "X509", "description": "client certificate whose common name is NODE.NAME"},
    "password": {"type": "userPassword", "description": "user name and password of MQTT"},
}


def documents() -> dict[str, str]:
    """Return the generated texts by file name: `asyncapi.json` and a `<kind>.schema.json` for each topic."""
    files = {"asyncapi.json": _text(asyncapi())}
    for topic in TOPICS:
        files[f"{topic.kind}.schema.json"] = _text(json_schema(topic.message))
    return files


def json_schema(message: type[Message]) -> dict[str, object]:
    """Return the JSON Schema (2020-12) of one message.

    In messages decoded from msgpack, bytes are valid as the decoder returns them.
    """
    schema = msgspec.json.schema(message)
    kind = next(topic.kind for topic in TOPICS if topic.message is message)
    definitions = {name: published(name, inner) for name, inner in schema["$defs"].items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": _ID.format(kind=kind),
        **schema,
        "$defs": definitions,
        "examples": _examples(message),
    }


def _examples(message: type[Message]) -> list[object]:
    return [msgspec.json.decode(to_json(example)) for example in examples_of(message)]


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
        "servers": _SERVERS,
        "channels": {topic.kind: _channel(topic) for topic in TOPICS},
        "operations": _operations(),
        "components": {
            "securitySchemes": _SECURITY,
            "schemas": {kind: published(kind, schema) for kind, schema in components.items()},
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
        "examples": [{"payload": payload} for payload in _examples(topic.message)],
        "bindings": {"mqtt": {"bindingVersion": _BINDING_VERSION}},
    } | _correlation(topic)


def _correlation(topic: Topic[Message]) -> dict[str, object]:
    """Return the field by which an answer belongs to its message."""
    if topic.kind not in _HAS_PHOTO_ID:
        return {}
    return {"correlationId": {"location": "$message.payload#/photo_id"}}


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
            } | _reply(topic)
    return operations


def _reply(topic: Topic[Message]) -> dict[str, object]:
    kind = _REPLIES.get(topic.kind)
    return {} if kind is None else {"reply": {"channel": {"$ref": f"#/channels/{kind}"}}}


def _text(value: dict[str, object]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False) + "\n"
