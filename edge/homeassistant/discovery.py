"""The messages of Home Assistant's MQTT discovery: plain functions of names.

Two forms are equivalent. `entities` is one retained message per entity, which every version reads; `device`
is one per device, which needs Home Assistant 2024.11.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct

from schemas import distribution
from schemas.codec import encode
from schemas.errors import DECODE_ERRORS
from schemas.field_types import Milliseconds
from schemas.messages import Command, Result
from schemas.topics import COMMAND, NAME, STATUS, is_reserved

Form = Literal["entities", "device"]

PREFIX = "homeassistant"
"""Home Assistant's default discovery prefix."""
BIRTH_TOPIC = f"{PREFIX}/status"
BIRTH = b"online"
_ROOT = "gleaner/homeassistant"
_ONLINE_OR_NOT = "{{ 'offline' if value_json.state == 'offline' else 'online' }}"
_PROBLEM = "{{ 'OFF' if value_json.state == 'online' else 'ON' }}"
# An answer that the vote does not confirm leaves the state as it is.
_LABEL = "{{ this.state if value_json.confirmed is false else value_json.label }}"
_REASON = "{{ {'reason': value_json.reason | default('')} | tojson }}"

Config = dict[str, object]


class _Answered(Struct, frozen=True):
    """What is read of an answer: anybody may have written it where a broker asks for no certificate."""

    answered_at_ms: Milliseconds


class Entity(NamedTuple):
    """An entity: its kind in Home Assistant, its key within the device, and its configuration."""

    component: str
    key: str
    config: Config


def result_topic(node: str, device: str) -> str:
    """Return the topic of a device's newest answer, retained."""
    return f"{_ROOT}/{node}/{device}/result"


def image_topic(node: str, device: str) -> str:
    """Return the topic of a device's newest answered picture, retained: the bytes of the image alone."""
    return f"{_ROOT}/{node}/{device}/image"


def model_topic(node: str) -> str:
    """Return the topic of a node's model versions, retained."""
    return f"{_ROOT}/{node}/model"


def device_of(topic: str, node: str) -> str | None:
    """Return the device of a result topic of a node; None for another topic, or a name that no device has."""
    levels = topic.split("/")
    if len(levels) != 5 or topic != result_topic(node, levels[3]):  # noqa: PLR2004  # as in `result_topic`
        return None
    return levels[3] if NAME.fullmatch(levels[3]) and not is_reserved(levels[3]) else None


def device_entities(node: str, device: str) -> list[Entity]:
    """Return the entities of a device: label, confidence, image, problem, and a button that takes a photo."""
    status, result = STATUS.name(node=node, name=device), result_topic(node, device)
    capture = encode(COMMAND, Command(node=node, device=device, action="capture")).decode()
    button: Config = {
        "name": "Take photo",
        "icon": "mdi:camera",
        "command_topic": COMMAND.name(node=node, device=device),
        "payload_press": capture,
        "qos": 1,
        # A client without a Status takes no commands.
        "availability": [{"topic": status, "value_template": _ONLINE_OR_NOT}],
    }
    return [
        Entity(
            "sensor",
            "label",
            {
                "name": "Label",
                "icon": "mdi:tag",
                "state_topic": result,
                "value_template": _LABEL,
                "json_attributes_topic": result,
            },
        ),
        Entity(
            "sensor",
            "confidence",
            {
                "name": "Confidence",
                "icon": "mdi:percent",
                "state_topic": result,
                "value_template": "{{ (value_json.confidence * 100) | round(1) }}",
                "unit_of_measurement": "%",
                "state_class": "measurement",
            },
        ),
        Entity("image", "photo", {"name": "Photo", "image_topic": image_topic(node, device)}),
        _problem(status),
        Entity("button", "capture", button),
    ]


def node_entities(node: str, handler: str) -> list[Entity]:
    """Return the entities of an edge node: problem, and the version of its model."""
    update: Config = {
        "name": "Model",
        "state_topic": model_topic(node),
        "entity_category": "diagnostic",
    }
    return [_problem(STATUS.name(node=node, name=handler)), Entity("update", "model", update)]


def _problem(status_topic: str) -> Entity:
    config: Config = {
        "name": "Problem",
        "device_class": "problem",
        "entity_category": "diagnostic",
        "state_topic": status_topic,
        "value_template": _PROBLEM,
        "json_attributes_topic": status_topic,
        "json_attributes_template": _REASON,
    }
    return Entity("binary_sensor", "problem", config)


def announcements(form: Form, node: str, device: str | None, entities: Sequence[Entity]) -> dict[str, bytes]:
    """Return the retained messages that make a device known, by topic.

    Args:
        form: How to format it.
        node: The edge node.
        device: The device; None for the node itself.
        entities: Its entities.
    """
    identifier = _identifier(node, device)
    about = {"device": _device(node, device), "origin": _origin()}
    configs = {
        one.key: (one.component, {**one.config, "unique_id": f"{identifier}_{one.key}"}) for one in entities
    }
    if form == "device":
        components = {key: {"platform": kind, **config} for key, (kind, config) in configs.items()}
        return {f"{PREFIX}/device/{identifier}/config": _json({**about, "components": components})}
    return {
        f"{PREFIX}/{kind}/{identifier}/{key}/config": _json({**config, **about})
        for key, (kind, config) in configs.items()
    }


def removals(form: Form, node: str, device: str, entities: Sequence[Entity]) -> dict[str, bytes]:
    """Return the messages that remove a device and what is retained of it: empty ones clear a topic."""
    shown = (result_topic(node, device), image_topic(node, device))
    return dict.fromkeys([*announcements(form, node, device, entities), *shown], b"")


def answer(result: Result) -> bytes:
    """Return what is shown of a result `ok`: label, confidence, model version, photo id, time and vote."""
    shown = {
        "label": result.label,
        "confidence": result.confidence,
        "model_version": result.model_version,
        "photo_id": result.photo_id,
        "answered_at_ms": result.answered_at_ms,
        "confirmed": result.confirmed,
    }
    return _json(shown)


def answered_at_ms(payload: bytes) -> int | None:
    """Return the time in a message of `answer`, None if it is none."""
    try:
        return msgspec.json.decode(payload, type=_Answered).answered_at_ms
    except DECODE_ERRORS:
        return None


def model_versions(model: str, installed: int | None, released: int | None) -> bytes:
    """Return the state of the update entity; without a release the installed version is the latest."""
    latest = installed if released is None else released
    versions = {"installed_version": installed, "latest_version": latest}
    shown = {name: None if version is None else str(version) for name, version in versions.items()}
    return _json({**shown, "title": model})


def _identifier(node: str, device: str | None) -> str:
    # DNS labels contain no underscore, so identifiers of different devices differ.
    return f"gleaner_{node}" if device is None else f"gleaner_{node}_{device}"


def _device(node: str, device: str | None) -> Mapping[str, object]:
    about = {"identifiers": [_identifier(node, device)], "manufacturer": "Gleaner"}
    if device is None:
        return about | {"name": node, "model": "edge node", "sw_version": distribution.version()}
    return about | {"name": device, "model": "camera", "via_device": _identifier(node, None)}


def _origin() -> Mapping[str, str]:
    return {"name": "Gleaner", "sw_version": distribution.version()}


def _json(content: Mapping[str, object]) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
