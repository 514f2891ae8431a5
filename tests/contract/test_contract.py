"""G7: an old reader survives a new writer and the reverse, within a topic version."""

import base64
import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas import asyncapi
from schemas.codec import decode, to_json, to_msgpack
from schemas.topics import TOPICS, find
from tests.contract.plain import read
from tests.schemas.strategies import messages

RECORDED = sorted(path.parent for path in Path(__file__).parent.glob("*/vectors.json"))
VECTORS = [
    pytest.param(vector, folder, id=f"{folder.name}-{number}-{vector['topic'].split('/')[2]}")
    for folder in RECORDED
    for number, vector in enumerate(json.loads((folder / "vectors.json").read_text()))
]


@pytest.mark.parametrize(("vector", "folder"), VECTORS)
def test_g7_todays_reader_reads_what_earlier_versions_wrote(vector, folder):
    """Every recorded message still means what it meant: each field that it had comes out with its value."""
    topic, names = find(vector["topic"])
    message = decode(topic, base64.b64decode(vector["payload"]), names)
    assert _part(msgspec.to_builtins(message), vector["fields"]) == vector["fields"]


@pytest.mark.parametrize(("vector", "folder"), VECTORS)
def test_g7_a_reader_without_our_code_reads_what_we_wrote(vector, folder):
    """The JSON Schema published with a version and plain msgpack are enough to read its messages."""
    assert read(base64.b64decode(vector["payload"]), vector["topic"], folder) == vector["fields"]


@pytest.mark.parametrize("folder", RECORDED, ids=lambda folder: folder.name)
@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.kind)
@pytest.mark.parametrize("write", [to_json, to_msgpack])
@given(data=st.data())
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_g7_a_reader_of_an_earlier_version_reads_what_we_write_today(folder, topic, write, data):
    """Whatever this version writes satisfies the schema that was published with each earlier one."""
    message = data.draw(messages(topic.message))
    names = {name: getattr(message, name) for name in topic.names}
    assert read(write(message), topic.name(**names), folder)["v"] == 1


@pytest.mark.parametrize("folder", RECORDED, ids=lambda folder: folder.name)
@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.kind)
def test_g7_the_contract_only_grows(folder, topic):
    """A field that was published keeps its type, its values and its meaning, and no new field is required."""
    before = json.loads((folder / f"{topic.kind}.schema.json").read_text())["$defs"]
    today = asyncapi.json_schema(topic.message)["$defs"]
    for name, shape in before.items():
        assert today[name].get("required") == shape.get("required"), name
        for field, rule in shape["properties"].items():
            now, then = _meaning(today[name]["properties"][field]), _meaning(rule)
            assert now.keys() == then.keys(), f"{name}.{field}"
            assert _part(now, then) == then, f"{name}.{field}"


def _part(fields: object, known: object) -> object:
    """Return, at every depth, what an earlier version knew of a message or of a default."""
    if isinstance(fields, dict) and isinstance(known, dict):
        return {name: _part(fields.get(name), value) for name, value in known.items()}
    return fields


def _meaning(rule: object) -> object:
    """Return a schema without its words for people."""
    if isinstance(rule, dict):
        return {key: _meaning(value) for key, value in rule.items() if key != "description"}
    return [_meaning(value) for value in rule] if isinstance(rule, list) else rule


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.kind)
@pytest.mark.parametrize("write", [msgspec.json.encode, msgspec.msgpack.encode])
@given(data=st.data())
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_g7_todays_reader_passes_over_fields_of_tomorrow(topic, write, data):
    """A message with fields that this version does not know is read as if they were not there."""
    message = data.draw(messages(topic.message))
    names = {name: getattr(message, name) for name in topic.names}
    fields = msgspec.to_builtins(message) | {
        "from_tomorrow": data.draw(st.sampled_from([1, "x", [{}], None]))
    }
    assert decode(topic, write(fields), names) == message
