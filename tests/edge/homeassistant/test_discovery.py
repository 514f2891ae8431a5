import json

import jinja2
import pytest

from edge.homeassistant import discovery
from schemas.codec import decode
from schemas.messages import Result
from schemas.topics import COMMAND

ENTITIES = discovery.device_entities("edge-1", "porch")


def result(**fields: object) -> Result:
    facts = {"photo_id": "0" * 32, "node": "edge-1", "device": "porch", "status": "ok", "edge_ms": 1.0}
    return Result(**(facts | {"answered_at_ms": 7} | fields))  # type: ignore[arg-type]  # fields vary by test


def test_each_entity_has_a_message_of_its_own():
    """Form `entities`: the topic has component, device and key; ids are unique; all name one device."""
    said = discovery.announcements("entities", "edge-1", "porch", ENTITIES)
    assert sorted(said) == [
        "homeassistant/binary_sensor/gleaner_edge-1_porch/problem/config",
        "homeassistant/button/gleaner_edge-1_porch/capture/config",
        "homeassistant/image/gleaner_edge-1_porch/photo/config",
        "homeassistant/sensor/gleaner_edge-1_porch/confidence/config",
        "homeassistant/sensor/gleaner_edge-1_porch/label/config",
    ]
    configs = [json.loads(payload) for payload in said.values()]
    assert len({config["unique_id"] for config in configs}) == len(configs)
    assert {config["device"]["identifiers"][0] for config in configs} == {"gleaner_edge-1_porch"}
    assert {config["device"]["via_device"] for config in configs} == {"gleaner_edge-1"}


def test_the_form_device_says_the_same_in_one_message():
    """Form `device`: one message with all components, each with its platform and the same configuration."""
    (payload,) = discovery.announcements("device", "edge-1", "porch", ENTITIES).values()
    said = json.loads(payload)
    assert set(said) == {"device", "origin", "components"}
    single = discovery.announcements("entities", "edge-1", "porch", ENTITIES)
    for topic, content in single.items():
        _, platform, _, key, _ = topic.split("/")
        expected = {name: value for name, value in json.loads(content).items() if name not in said}
        assert said["components"][key] == {"platform": platform, **expected}


@pytest.mark.parametrize("form", ["entities", "device"])
def test_a_removal_clears_all_that_is_retained(form):
    """Empty messages on the topics of discovery, answer and picture."""
    removed = discovery.removals(form, "edge-1", "porch", ENTITIES)
    assert set(removed) >= set(discovery.announcements(form, "edge-1", "porch", ENTITIES))
    assert {discovery.result_topic("edge-1", "porch"), discovery.image_topic("edge-1", "porch")} < set(
        removed
    )
    assert set(removed.values()) == {b""}


def test_devices_of_different_nodes_have_different_ids():
    """`a-b` of node `c` is not `b` of node `c-a`, despite the hyphens."""
    topics = [
        topic
        for node, device in (("c", "a-b"), ("c-a", "b"), ("c-a-b", None))
        for topic in discovery.announcements("device", node, device, [])
    ]
    assert len(set(topics)) == 3


def test_the_button_sends_a_command_of_the_contract():
    """Its payload is a Command that the device's agent reads."""
    (button,) = [entity.config for entity in ENTITIES if entity.component == "button"]
    command = decode(COMMAND, str(button["payload_press"]).encode(), {"node": "edge-1", "device": "porch"})
    assert command.action == "capture"
    assert button["command_topic"] == "gleaner/v1/command/edge-1/porch"


def test_what_is_shown_of_an_answer():
    """Label, confidence, version and vote; the time is read again by the next run."""
    payload = discovery.answer(result(label="猫", confidence=0.93, model_version=4))
    assert json.loads(payload) == {
        "label": "猫", "confidence": 0.93, "model_version": 4, "photo_id": "0" * 32, "answered_at_ms": 7,
        "confirmed": None,
    }  # fmt: skip
    assert discovery.answered_at_ms(payload) == 7


@pytest.mark.parametrize(
    ("confirmed", "shown"),
    [(False, "cat"), (True, "dog"), (None, "dog")],
    ids=["undecided", "vote", "no vote"],
)
def test_an_answer_that_the_vote_does_not_confirm_leaves_the_label(confirmed, shown):
    """The label's template reads the answer as it is published: its state stays until the vote confirms."""
    (label,) = [one for one in ENTITIES if one.key == "label"]
    template = jinja2.Template(str(label.config["value_template"]))
    said = json.loads(discovery.answer(result(label="dog", confidence=0.9, confirmed=confirmed)))
    assert template.render(this={"state": "cat"}, value_json=said) == shown


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b'{"answered_at_ms": "x"}', b"\xff", b"7"])
def test_g4_other_payloads_have_no_time(payload):
    """G4: no message on the topic can stop the edge."""
    assert discovery.answered_at_ms(payload) is None


@pytest.mark.parametrize(
    ("installed", "released", "shown"),
    [(3, 4, ("3", "4")), (3, None, ("3", "3")), (None, 4, (None, "4")), (None, None, (None, None))],
)
def test_the_update_shows_installed_and_released_version(installed, released, shown):
    """Without a release the installed version is the latest."""
    said = json.loads(discovery.model_versions("pets", installed, released))
    assert (said["installed_version"], said["latest_version"]) == shown


def test_the_device_of_a_topic():
    """Only a result topic of this node has one."""
    assert discovery.device_of("gleaner/homeassistant/edge-1/porch/result", "edge-1") == "porch"
    for topic in ("gleaner/homeassistant/edge-2/porch/result", "gleaner/homeassistant/edge-1/model", "x"):
        assert discovery.device_of(topic, "edge-1") is None
