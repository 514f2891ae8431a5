"""The published contract as programs in other languages read it."""

import re
from collections.abc import Iterator

import jsonschema
import msgpack
import msgspec
import pytest
import re2
from msgspec import inspect

from bus.gateway.config import GatewayConfig
from cloud.retraining.config import TrainerConfig
from console.config import ConsoleConfig
from device.config import DeviceConfig
from edge.config import EdgeConfig
from schemas import field_types
from schemas.codec import to_json, to_msgpack
from schemas.contract import asyncapi
from schemas.contract.examples import EXAMPLES, examples_of
from schemas.contract.published import portable, readable
from schemas.topics import TOPICS

DOCUMENT = asyncapi.asyncapi()
SCHEMAS = {topic.kind: asyncapi.json_schema(topic.message) for topic in TOPICS}
KIND_OF = {topic.message: topic.kind for topic in TOPICS}


def pattern_of(kind: inspect.Type) -> str | None:
    """Return the pattern of a text, also of an optional one."""
    if isinstance(kind, inspect.Metadata):
        return pattern_of(kind.type)
    if isinstance(kind, inspect.UnionType):
        return next(filter(None, map(pattern_of, kind.types)), None)
    return kind.pattern if isinstance(kind, inspect.StrType) else None


def parts(value: object) -> Iterator[dict[str, object]]:
    """Yield each object inside a document."""
    if isinstance(value, dict):
        yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for one in inner:
        yield from parts(one)


def patterns() -> set[str]:
    return {
        part["pattern"]
        for part in parts([DOCUMENT, *SCHEMAS.values()])
        if isinstance(part.get("pattern"), str)
    }


def test_every_pattern_compiles_without_lookahead():
    """RE2, which Go and others use, takes each pattern; it refuses lookahead and back-references."""
    assert len(patterns()) >= 6
    for pattern in patterns():
        re2.compile(pattern)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", " ", "\x00"])
def test_a_published_pattern_accepts_what_the_runtime_does(end):
    """Without Python's peculiarity of `$` both patterns are the same: a line break at the end is refused."""
    runtime = r"^[0-9a-f]{4}$(?!\n)"
    assert portable(runtime) == "^[0-9a-f]{4}$"
    assert re2.search(portable(runtime), "00ff")
    assert re.search(runtime, "00ff")
    assert not re2.search(portable(runtime), f"00ff{end}")
    assert not re.search(runtime, f"00ff{end}")


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.kind)
def test_every_message_has_valid_examples(topic):
    """Each schema has examples, which are valid under it."""
    schema = SCHEMAS[topic.kind]
    assert len(schema["examples"]) == len(examples_of(topic.message)) > 0
    for example in schema["examples"]:
        jsonschema.validate(example, schema)


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: KIND_OF[type(message)])
def test_a_message_is_valid_as_decoded_from_either_encoding(message):
    """Bytes are base64 text in JSON and bytes in msgpack; the same schema accepts both."""
    schema = SCHEMAS[KIND_OF[type(message)]]
    jsonschema.validate(msgspec.json.decode(to_json(message)), schema)
    jsonschema.validate(msgpack.unpackb(to_msgpack(message)), schema)


@pytest.mark.parametrize("wrong", [None, 1, 1.5, True, [1, 2], ""])
def test_what_cannot_be_bytes_is_invalid(wrong):
    """A field of bytes takes neither numbers, lists, null nor an empty text."""
    photo = msgspec.to_builtins(examples_of(type(EXAMPLES[0]))[0]) | {"image": wrong}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(photo, SCHEMAS["photo"])


def test_every_enumeration_and_nullable_field_has_a_title_of_its_own():
    """Generators name types by titles; without one they number them."""
    titles: dict[str, object] = {}
    for schema in DOCUMENT["components"]["schemas"].values():
        for field, rules in schema["properties"].items():
            if field == "v" or not ({"enum", "anyOf"} & rules.keys()):
                continue
            assert rules["title"] not in titles, rules["title"]
            titles[rules["title"]] = rules
    assert {"ResultStatus", "ResultConfidence", "ReleaseStage"} <= titles.keys()


def test_schemas_and_channels_are_complete():
    """Each schema has an absolute id; photo and sample name their answer; servers name their security."""
    assert {schema["$id"] for schema in SCHEMAS.values()} == {f"urn:gleaner:v1:{kind}" for kind in SCHEMAS}
    replies = {
        name: operation["reply"]["channel"]["$ref"]
        for name, operation in DOCUMENT["operations"].items()
        if "reply" in operation
    }
    assert replies == {
        f"{verb}-{kind}": f"#/channels/{reply}"
        for verb in ("publish", "receive")
        for kind, reply in (("photo", "result"), ("sample", "receipt"))
    }
    secured = [server["security"] for server in DOCUMENT["servers"].values() if "security" in server]
    known = {f"#/components/securitySchemes/{name}" for name in DOCUMENT["components"]["securitySchemes"]}
    assert {one["$ref"] for security in secured for one in security} == known


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        (field_types.PhotoId, "Expected 32 hexadecimal digits in lower case"),
        (field_types.Sha256, "Expected 64 hexadecimal digits in lower case"),
        (field_types.ModelName, "Expected 1 to 63 letters, digits, `_`, `.` or `-`"),
        (field_types.Name, "Expected a DNS label (1 to 63 of a-z, 0-9 and inner hyphens)"),
    ],
)
def test_errors_name_the_form_of_a_text(kind, form):
    """A person reads how an id or a name looks, and sees no pattern of a program."""
    with pytest.raises(msgspec.ValidationError) as error:
        msgspec.convert("not it!", kind)
    assert readable(error.value) == form


@pytest.mark.parametrize("config", [EdgeConfig, DeviceConfig, ConsoleConfig, GatewayConfig, TrainerConfig])
def test_no_error_of_a_configuration_shows_a_pattern(config):
    """Every field with a pattern has its form in words."""
    fields = [field for field in inspect.type_info(config).fields if pattern_of(field.type)]
    for field in fields:
        with pytest.raises(msgspec.ValidationError) as error:
            msgspec.convert({field.encode_name: "\n"}, config)
        assert "regex" not in readable(error.value), field.name
