"""The signature of a served model is checked when the edge starts."""

from pathlib import Path

from msgspec import structs

from bus.diagnosis.status_checks import status_finding
from schemas.events import EventName
from schemas.topics import RELEASE
from tests.conftest import eventually
from tests.nodes import NODE, enveloped, photo, photo_id, station
from tests.serving import CLASSES, place, release_of


async def test_a_model_on_an_own_server_answers_with_configured_classes(config):
    """A model with other names and logits, without release, folder and assets, classifies as ours do."""
    own = structs.replace(config, model="foreign", models_dir=None, classes=CLASSES)
    async with station(own) as seen:
        for number, colour in enumerate(("red", "blue")):
            await seen.send(enveloped(number, photo(number, colour)))
        results = [await seen.answer(photo_id(number)) for number in range(2)]
        assert [result.label for result in results] == list(CLASSES)
        assert all(0.9 < sum(result.scores.values()) < 1.1 for result in results)


async def test_a_model_that_takes_no_photos_is_named_at_start(config):
    """Before any photo: an event, a degraded status, and the check of `gleaner doctor`."""
    own = structs.replace(config, model="pixels", models_dir=None, classes=CLASSES)
    async with station(own) as seen:
        status = await seen.status("degraded")
        assert status.reason is not None
        assert "model pixels version 1 cannot be used: it takes x float32[?,16,16,3], not" in status.reason
        assert "gleaner cloud adopt" in status.reason
        finding = status_finding("edge", status, "start it")
        assert not finding.passed
        assert status.reason in finding.found
        await eventually(lambda: [e.event for e in seen.events] == [EventName.MODEL_MISMATCHED])


async def test_missing_class_names_are_named(config):
    """The status names where to configure them."""
    own = structs.replace(config, model="foreign", models_dir=None)
    async with station(own) as seen:
        status = await seen.status("degraded")
        assert status.reason is not None
        assert "its class names are unknown; set `classes`" in status.reason
        await eventually(lambda: [e.event for e in seen.events] == [EventName.MODEL_MISMATCHED])


async def test_another_number_of_classes_is_named(config):
    """Three names for two scores."""
    own = structs.replace(config, model="foreign", models_dir=None, classes=("cat", "dog", "owl"))
    async with station(own) as seen:
        status = await seen.status("degraded")
        assert status.reason is not None
        assert "it gives 2 scores (logits) for 3 class names" in status.reason


async def test_a_version_of_ours_follows_a_foreign_one(config, bundles, own_models):
    """The form of the version in service is not that of the next: a release is tested by its own names."""
    name = next(own_models)
    base = Path(config.models_dir) / name
    place("foreign", base, 2)
    own = structs.replace(config, model=name, classes=CLASSES)
    async with station(own) as seen:
        await eventually(lambda: seen.newest().model is not None and seen.newest().model.version == 2)
        await seen.send(enveloped(1, photo(1, "red")))
        assert (await seen.answer(photo_id(1))).model_version == 2
        release = release_of(bundles["swapped"], 3, model=name)
        await seen.bus.publish(RELEASE, release, node=NODE)
        await eventually(lambda: EventName.MODEL_AVAILABLE in [event.event for event in seen.events])
        await seen.send(enveloped(2, photo(2, "red")))
        answer = await seen.answer(photo_id(2))
        assert (answer.model_version, answer.label) == (3, "dog")
