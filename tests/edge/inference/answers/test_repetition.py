"""A photo that arrives again: answered again, asked again, or distinguished from another picture."""

import pytest

from edge.inference.answers.repetition import RESEND_WINDOW_MS, judge
from edge.scheduling.in_flight import InFlightPhoto
from schemas.codec import content_id
from schemas.messages import Photo, Result
from tests.conftest import eventually
from tests.nodes import NODE, edge_config, enveloped, photo, photo_id, station
from tests.serving import place

NOW = 10_000_000


@pytest.mark.parametrize(
    ("bare", "age_ms", "version", "served", "verdict"),
    [
        (False, 10 * RESEND_WINDOW_MS, 1, {2}, "answer again"),  # it has its own id
        (True, 0, 1, {1}, "answer again"),
        (True, RESEND_WINDOW_MS, 1, {1, 2}, "answer again"),
        (True, RESEND_WINDOW_MS + 1, 1, {1}, "ask again"),
        (True, 0, 1, {2}, "ask again"),  # another version is in service
        (True, 0, 1, set(), "ask again"),  # the model server is away
        (True, -1, 1, {1}, "ask again"),  # our clock was set back
        (True, 0, None, set(), "answer again"),  # a rejection needs no model
    ],
)
def test_only_a_bare_image_is_asked_again(bare, age_ms, version, served, verdict):
    """It is a new question after the window, or if another version answers now.

    Its id is that of its bytes, also where the recorded picture is another one: earlier versions of the edge
    had another normal form of odd pictures, so that the same file was refused forever.
    """
    image = photo(1)
    entry = InFlightPhoto(
        Photo(photo_id=photo_id(1), node=NODE, device="pi-1", image=image), lambda: None, 0.0, bare=bare
    )
    recorded = Result(
        photo_id=photo_id(1),
        node=NODE,
        device="pi-1",
        status="ok",
        model_version=version,
        answered_at_ms=NOW - age_ms,
    )
    for picture in (None, content_id(image)):
        assert judge(entry, recorded, picture, frozenset(served), NOW) == verdict
    expected = "ask again" if bare else "other picture"
    assert judge(entry, recorded, content_id(photo(2)), frozenset(served), NOW) == expected


async def test_a_bare_image_is_answered_by_the_version_in_service(address, own_serving, tmp_path):
    """After a swap the same file gets the new version's answer; a photo with its own id keeps the old one."""
    own_serving.start()
    config = edge_config(address, own_serving.address, tmp_path, models_dir=str(own_serving.base))
    async with station(config) as seen:
        image = photo(1, "red")
        await seen.send(image)
        await seen.send(enveloped(7, image))
        assert (await seen.answer(content_id(image))).label == "cat"
        assert (await seen.answer(photo_id(7))).label == "cat"
        place("swapped", own_serving.base / "pets", 2)
        await eventually(lambda: (model := seen.newest().model) is not None and model.version == 2)
        before = len(seen.results)
        await seen.send(image)
        await seen.send(enveloped(7, image))
        await eventually(lambda: len(seen.results) == before + 2)
        labels = {one.photo_id: (one.label, one.model_version) for one in seen.results[before:]}
        assert labels == {content_id(image): ("dog", 2), photo_id(7): ("cat", 1)}
        # The new answer is the recorded one.
        await seen.send(image)
        await eventually(lambda: len(seen.results) == before + 3)
        assert seen.results[-1] == next(
            one for one in seen.results[before:-1] if one.photo_id == content_id(image)
        )


async def test_two_pictures_with_one_id_are_told_apart(config, serving):
    """The second one is rejected with the reason, at any time; the first keeps its result."""
    async with station(config) as seen:
        serving.pause()
        await seen.send(enveloped(1, photo(1, "red")))
        await seen.send(enveloped(1, photo(1, "red")))
        await seen.send(enveloped(1, photo(2, "blue")))
        await eventually(lambda: any(one.status == "rejected" for one in seen.results))
        serving.resume()
        await eventually(lambda: any(one.status == "ok" for one in seen.results))
        for payload in (
            enveloped(1, photo(2, "blue")),
            enveloped(1, b"no picture"),
            enveloped(1, photo(1, "red")),
        ):
            before = len(seen.results)
            await seen.send(payload)
            await eventually(lambda before=before: len(seen.results) > before)
        final = [one for one in seen.results if one.status != "deferred"]
        assert [one.label or one.code for one in final] == [
            "malformed-message",
            "cat",
            "malformed-message",
            "malformed-message",
            "cat",
        ]
        assert all("another picture" in one.reason for one in final if one.code)
