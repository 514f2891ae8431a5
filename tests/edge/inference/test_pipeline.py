"""The handler end to end: a real broker, the real model server, photos in and answers out."""

from pathlib import Path

import msgspec
import pytest
from msgspec import structs
from structlog.testing import capture_logs

from bus.mqtt.presence import now_ms
from schemas.codec import content_id
from schemas.policy_rules import HarvestRules
from schemas.topics import RELEASE
from tests.conftest import eventually
from tests.nodes import (
    NODE,
    Observer,
    counted,
    edge_config,
    edge_running,
    enveloped,
    photo,
    photo_id,
    station,
    truncated,
)
from tests.serving import place, release_of


async def test_a_photo_gets_one_result_in_json(config):
    """It has label, scores, model, lane and the time of the photo."""
    async with station(config) as seen:
        await seen.send(enveloped(1, photo(1, "red"), taken_at_ms=5))
        answer = await seen.answer(photo_id(1))
        assert (answer.status, answer.label, answer.harvest, answer.taken_at_ms) == ("ok", "cat", "auto", 5)
        assert (answer.node, answer.model, answer.model_version) == (NODE, "pets", 1)
        assert set(answer.scores) == {"cat", "dog"}
        read = msgspec.json.decode((await seen.raw_results.get()).payload)
        assert (read["v"], read["label"], read["photo_id"]) == (1, "cat", photo_id(1))
        assert seen.raw_results.empty()


async def test_a_result_has_the_measures_of_uncertainty(config, serving):
    """Margin, entropy, novelty, and by the release's temperature the raw confidence; novel is hard."""
    config = structs.replace(config, model="novel")
    async with station(config) as seen:
        await seen.send(enveloped(1, photo(1, "red")))
        known = await seen.answer(photo_id(1))
        assert (known.harvest, known.raw_confidence) == ("auto", None)
        assert known.novelty < 1
        release = release_of(serving.base / "novel/1/saved_model.pb", 1, model="novel", temperature=2.0)
        await seen.bus.publish(RELEASE, release, node=NODE)
        await eventually((Path(config.state_dir) / "releases/novel-1.json").exists)
        await seen.send(enveloped(2, photo(2, "grey")))
        novel = await seen.answer(photo_id(2))
        assert novel.harvest == "hard"
        assert novel.novelty > 1
        first, second = sorted(novel.scores.values(), reverse=True)
        assert novel.margin == pytest.approx(first - second, abs=2e-6)
        assert novel.raw_confidence == pytest.approx(first**2 / (first**2 + second**2), abs=2e-6)
        assert novel.entropy > 0.9
        await eventually(lambda: len(seen.samples) >= 2)
        sample = next(one for one in seen.samples if one.photo_id == photo_id(2))
        assert round(sample.raw_confidence, 6) == novel.raw_confidence
        assert round(sample.novelty, 6) == novel.novelty


async def test_bare_images_are_answered(config):
    """The photo id of a bare JPEG or PNG is the hash of its bytes."""
    async with station(config) as seen:
        for image, label in ((photo(1, "red"), "cat"), (photo(2, "blue", kind="PNG"), "dog")):
            await seen.send(image)
            assert (await seen.answer(content_id(image))).label == label


async def test_the_log_says_why_a_photo_was_rejected(config):
    """The line of a photo has the code and the reason of its result, so that the log alone explains it."""
    with capture_logs() as logged:
        async with station(config) as seen:
            await seen.send(enveloped(1, b"no picture at all"))
            answer = await seen.answer(photo_id(1))
            # The line follows the result.
            await eventually(lambda: any(entry["event"] == "photo.answered" for entry in logged))
    (line,) = [entry for entry in logged if entry["event"] == "photo.answered"]
    assert answer.reason
    assert [line[name] for name in ("photo_id", "status", "code", "reason")] == [
        photo_id(1), "rejected", "unsupported-image", answer.reason,
    ]  # fmt: skip


async def test_a_repeated_photo_gets_the_recorded_result(config):
    """The result is the same after a restart too; the photo is predicted and harvested once."""
    async with Observer(config.broker).watching() as seen:
        for runs in (1, 2):
            async with edge_running(config):
                await seen.status("online")
                for times in (1, 2):
                    await seen.send(enveloped(1, photo(1)))
                    await eventually(lambda wanted=2 * runs + times - 2: len(seen.results) == wanted)
            counters = await counted(seen)
            assert counters.get("predict.photos", 0) == (runs == 1)
            assert counters["photo.answered_before"] == (1 if runs == 1 else 2)
        assert all(result == seen.results[0] for result in seen.results)
        assert len({sample.harvested_at_ms for sample in seen.samples}) == 1


async def test_the_same_bytes_from_two_devices_are_two_photos(config):
    """Each device gets a result for its own photo."""
    async with station(config) as seen:
        await seen.send(photo(1), "pi-1")
        await seen.send(photo(1), "pi-2")
        for device in ("pi-1", "pi-2"):
            assert (await seen.answer(content_id(photo(1)), device)).status == "ok"


async def test_photos_that_arrive_during_a_call_share_the_next(config, serving):
    """Natural batching: while calls take long, photos of many devices form few batches."""
    config = structs.replace(config, predict_timeout_s=2.0)
    async with Observer(config.broker).watching() as seen:
        async with edge_running(config):
            await seen.status("online")
            serving.pause()
            for number in range(30):
                device = f"pi-{number}"
                await seen.send(enveloped(number, photo(number), device), device)
            # A call that failed by its deadline defers its batch and all queued photos: now all are here.
            await eventually(lambda: {one.device for one in seen.results} == {f"pi-{n}" for n in range(30)})
            serving.resume()
            for number in range(30):
                assert (await seen.answer(photo_id(number), f"pi-{number}")).status == "ok"
        counters = await counted(seen)
        assert counters["predict.photos"] == 30
        assert counters["predict.calls"] <= 5


async def test_a_bad_photo_is_split_out_of_its_batch(config, serving):
    """Only photos that the server cannot decode are rejected; the others of the batch are classified."""
    config = structs.replace(config, batch_per_device=16)
    async with Observer(config.broker).watching() as seen:
        async with edge_running(config):
            await seen.status("online")
            serving.pause()
            for number in range(20):
                image = photo(number, "blue")
                await seen.send(enveloped(number, truncated(image) if number in (7, 8, 15) else image))
            serving.resume()
            answers = [await seen.answer(photo_id(number)) for number in range(20)]
        assert [answer.code or answer.label for answer in answers] == [
            "corrupt-image" if number in (7, 8, 15) else "dog" for number in range(20)
        ]
        assert (await counted(seen))["photo.rejected_corrupt-image"] == 3


async def test_a_model_that_refuses_everything_rejects_no_photo(address, own_serving, tmp_path):
    """If a known-good image is refused too, the model is at fault: photos wait for another version."""
    base = own_serving.base / "pets"
    place("refusing", base, 2)
    own_serving.start()
    config = edge_config(address, own_serving.address, tmp_path, models_dir=str(own_serving.base))
    async with station(config) as seen:
        await seen.send(enveloped(1, photo(1, "red")))
        await eventually(lambda: len(seen.results) == 1)
        assert seen.results[0].status == "deferred"
        assert "known good image" in seen.results[0].reason
        assert "known good image" in (await seen.status("degraded")).reason
        place("swapped", base, 3)
        assert (await seen.answer(photo_id(1))).label == "dog"
        await seen.status("online")


async def test_photos_wait_for_an_unreachable_server(address, own_serving, tmp_path):
    """Each photo is deferred once with the reason, the status is degraded, and then all are answered."""
    config = edge_config(address, own_serving.address, tmp_path, models_dir=str(own_serving.base))
    async with station(config) as seen:
        for number in range(40):
            await seen.send(enveloped(number, photo(number)))
        await eventually(lambda: len(seen.results) == 40)
        assert {result.status for result in seen.results} == {"deferred"}
        assert "UNAVAILABLE" in seen.results[0].reason
        assert "UNAVAILABLE" in (await seen.status("degraded")).reason
        own_serving.launch()
        for number in range(40):
            assert (await seen.answer(photo_id(number))).status == "ok"
        assert (await seen.status("online")).reason is None
        assert len(seen.results) == 80


async def test_a_server_killed_under_load_loses_no_photo(address, own_serving, tmp_path):
    """After a kill and a restart in the middle of a stream, every photo is answered."""
    own_serving.start()
    config = edge_config(address, own_serving.address, tmp_path, models_dir=str(own_serving.base))
    async with station(config) as seen:
        for number in range(60):
            await seen.send(enveloped(number, photo(number)))
            if number == 30:
                await eventually(lambda: len(seen.final()) > 5)
                own_serving.kill()
        await seen.status("degraded")
        own_serving.launch()
        for number in range(60):
            assert (await seen.answer(photo_id(number))).status == "ok"
        await seen.status("online")


async def test_a_hanging_server_is_detected_and_photos_expire(config, serving):
    """Calls fail by their deadline; photos that expire while they wait are rejected."""
    config = structs.replace(config, predict_timeout_s=2.0)
    async with station(config) as seen:
        serving.pause()
        for number in range(40):
            expires_at_ms = None if number % 2 else now_ms() + 1000  # the first is in the call that hangs
            await seen.send(enveloped(number, photo(number), expires_at_ms=expires_at_ms))
        for number in range(0, 40, 2):
            assert (await seen.answer(photo_id(number))).code == "expired"
        assert "DEADLINE_EXCEEDED" in (await seen.status("degraded")).reason
        serving.resume()
        for number in range(1, 40, 2):
            assert (await seen.answer(photo_id(number))).status == "ok"
        await seen.status("online")


async def test_photos_queued_at_the_broker_are_answered_on_connect(config):
    """Photos sent while the edge was offline are answered in its first connection, repeated ones too."""
    async with Observer(config.broker).watching() as seen:
        async with edge_running(config):
            await seen.status("online")
            await seen.send(enveloped(1, photo(1)))
            await seen.answer(photo_id(1))
        await seen.status("offline")
        for number in range(30):
            await seen.send(enveloped(number, photo(number)))
        async with edge_running(config):
            await eventually(lambda: len(seen.results) == 31)
            await seen.status("online")
        assert (await counted(seen))["bus.connected"] == 1


async def test_confident_and_uncertain_photos_become_samples(config):
    """Each in its lane."""
    config = structs.replace(config, harvest=HarvestRules(audit_share=0))
    async with station(config) as seen:
        for number, colour in enumerate(("red", "grey")):
            await seen.send(enveloped(number, photo(number, colour)))
        assert (await seen.answer(photo_id(0))).harvest == "auto"
        assert (await seen.answer(photo_id(1))).harvest == "hard"
        await eventually(lambda: {sample.lane for sample in seen.samples} == {"auto", "hard"})
