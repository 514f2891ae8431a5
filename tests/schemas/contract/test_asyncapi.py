from functools import cache
from pathlib import Path

import jsonschema
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.class_names import NEITHER
from schemas.codec import to_json
from schemas.contract import asyncapi
from schemas.topics import FEEDBACK, TOPICS
from tests.schemas.strategies import messages

COMMITTED = Path(__file__).resolve().parents[3] / "schemas" / "v1"


def test_the_committed_files_are_up_to_date():
    """The committed files in schemas/v1 are what `gleaner schema` generates."""
    for name, text in asyncapi.documents().items():
        assert (COMMITTED / name).read_text(encoding="utf-8") == text, name


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.kind)
@given(data=st.data())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_we_write_satisfies_the_published_schema(topic, data):
    """Every message that we write is valid under the published JSON Schema."""
    message = data.draw(messages(topic.message))
    _validator(topic.message).validate(msgspec.json.decode(to_json(message)))


@cache
def _validator(message):
    """Return a validator of a message's schema, which is generated and checked once for all examples."""
    schema = asyncapi.json_schema(message)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_every_topic_is_a_channel_with_resolvable_references():
    """The AsyncAPI document has each topic once, and every `$ref` in it resolves."""
    document = msgspec.json.decode(asyncapi.documents()["asyncapi.json"])
    addresses = [channel["address"] for channel in document["channels"].values()]
    assert addresses == [topic.pattern for topic in TOPICS]
    references = list(_references(document))
    assert references
    for reference in references:
        target = document
        for key in reference.removeprefix("#/").split("/"):
            target = target[key]


def test_the_label_for_none_of_the_classes_is_published():
    """The schema of Feedback documents the label for a photo that shows none of the classes."""
    feedback = asyncapi.json_schema(FEEDBACK.message)["$defs"]["Feedback"]
    assert f"`{NEITHER}`" in feedback["properties"]["label"]["description"]


def _references(value: object) -> "list[str]":
    if isinstance(value, dict):
        own = [value["$ref"]] if "$ref" in value else []
        return own + [found for inner in value.values() for found in _references(inner)]
    if isinstance(value, list):
        return [found for inner in value for found in _references(inner)]
    return []
