"""G7: an old reader survives a new writer and the reverse, within a topic version."""

import base64
import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.codec import decode, to_json, to_msgpack
from schemas.contract import asyncapi
from schemas.topics import TOPICS, find
from tests.contract.plain import read
from tests.schemas.strategies import messages

RECORDED = sorted(path.parent for path in Path(__file__).parent.glob("*/vectors.json"))
VECTORS = [
    pytest.param(vector, folder, id=f"{folder.name}-{number}-{vector['topic'].split('/')[2]}")
    for folder in RECORDED
    for number, vector in enumerate(json.loads((folder / "vectors.json").read_text()))
]

# A later topic has no earlier reader.
KNOWN = [
    pytest.param(folder, topic, id=f"{folder.name}-{topic.kind}")
    for folder in RECORDED
    for topic in TOPICS
    if (folder / f"{topic.kind}.schema.json").is_file()
]


@pytest.mark.parametrize(("vector", "folder"), VECTORS)
def test_g7_todays_reader_reads_what_earlier_versions_wrote(vector, folder):
    """Every recorded message is decoded, and each of its fields has the recorded value."""
    topic, names = find(vector["topic"])
    message = decode(topic, base64.b64decode(vector["payload"]), names)
    assert _part(msgspec.to_builtins(message), vector["fields"]) == vector["fields"]


@pytest.mark.parametrize(("vector", "folder"), VECTORS)
def test_g7_a_reader_without_our_code_reads_what_we_wrote(vector, folder):
    """Recorded messages are valid under the recorded JSON Schema and readable with plain msgpack."""
    assert read(base64.b64decode(vector["payload"]), vector["topic"], folder) == vector["fields"]


@pytest.mark.parametrize(("folder", "topic"), KNOWN)
@pytest.mark.parametrize("write", [to_json, to_msgpack])
@given(data=st.data())
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_g7_a_reader_of_an_earlier_version_reads_what_we_write_today(folder, topic, write, data):
    """Every message that this version writes is valid under the schema of each earlier version."""
    message = data.draw(messages(topic.message))
    names = {name: getattr(message, name) for name in topic.names}
    assert read(write(message), topic.name(**names), folder)["v"] == 1


@pytest.mark.parametrize(("folder", "topic"), KNOWN)
def test_g7_the_contract_only_grows(folder, topic):
    """A published field keeps its type, values and meaning; no new field is required."""
    before = json.loads((folder / f"{topic.kind}.schema.json").read_text())
    today = asyncapi.json_schema(topic.message)
    _assert_grown(_expand(before, before["$defs"]), _expand(today, today["$defs"]), topic.kind)


_FOR_PEOPLE = ("$defs", "$id", "title", "description", "examples", "x-events")


def _expand(schema: object, definitions: dict[str, object]) -> object:
    """Return a schema with each `$ref` replaced by its definition, and without what is for people.

    Definitions are compared where they are used, not by their name: no reader sees the name on the wire.
    """
    if isinstance(schema, list):
        return [_expand(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _expand(definitions[schema["$ref"].removeprefix("#/$defs/")], definitions)
    if "contentEncoding" in schema.get("anyOf", [{}])[0]:  # also bytes from msgpack; once text alone
        schema = schema | schema["anyOf"][0]
        del schema["anyOf"]
    if "pattern" in schema:  # once with a guard that a `$` of JSON Schema does not need
        schema = schema | {"pattern": schema["pattern"].replace(r"$(?!\n)", "$")}
    return {
        key: {name: _expand(field, definitions) for name, field in value.items()}
        if key == "properties"  # here the keys are fields, which may be called `title`
        else _expand(value, definitions)
        for key, value in schema.items()
        if key not in _FOR_PEOPLE
    }


def _assert_grown(before: object, today: object, where: str) -> None:
    """Fail unless two expanded schemas differ only by additional optional fields and their defaults."""
    if isinstance(before, dict) and isinstance(today, dict):
        assert before.keys() == today.keys(), where
        for key, rule in before.items():
            if key == "properties":
                for name, field in rule.items():
                    _assert_grown(field, today[key][name], f"{where}.{name}")
            elif key == "default":
                assert _part(today[key], rule) == rule, where
            else:
                _assert_grown(rule, today[key], where)
    elif isinstance(before, list) and isinstance(today, list):
        assert len(before) == len(today), where
        for rule, other in zip(before, today, strict=True):
            _assert_grown(rule, other, where)
    else:
        assert before == today, where


def _part(fields: object, known: object) -> object:
    """Return, at every depth, the fields of a message or of a default that an earlier version knew."""
    if isinstance(fields, dict) and isinstance(known, dict):
        return {name: _part(fields.get(name), value) for name, value in known.items()}
    return fields


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.kind)
@pytest.mark.parametrize("write", [msgspec.json.encode, msgspec.msgpack.encode])
@given(data=st.data())
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_g7_todays_reader_ignores_unknown_fields(topic, write, data):
    """A message with unknown fields is decoded to the same message as without them."""
    message = data.draw(messages(topic.message))
    names = {name: getattr(message, name) for name in topic.names}
    fields = msgspec.to_builtins(message) | {"added_later": data.draw(st.sampled_from([1, "x", [{}], None]))}
    assert decode(topic, write(fields), names) == message
