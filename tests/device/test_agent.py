import itertools

import pytest
from structlog.testing import capture_logs

from bus.config import OutboxLimits
from bus.mqtt.presence import now_ms
from device import agent as agent_module
from device.cameras.base import CameraError, CameraStuckError, Frame
from schemas.codec import MAX_PAYLOAD_BYTES
from schemas.topics import COMMAND, RESULT
from tests.conftest import eventually, jpeg
from tests.device.conftest import DEVICE, NODE, Scripted, recorded, result

EAGER = OutboxLimits(resend_first_s=0.2, resend_cap_s=0.4)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "photos"
    path.mkdir()
    for number in range(5):
        (path / f"{number}.jpg").write_bytes(jpeg(number))
    return f"folder:{path}"


async def test_the_agent_ends_after_the_last_result_of_a_folder(edge, agent, folder):
    """The agent takes each photo once, reports and records each result, and ends after the last one."""
    running = agent(camera=folder)
    counters = await running.ended()
    assert [photo.image for photo in edge.taken()] == [jpeg(number) for number in range(5)]
    assert [photo.sequence for photo in edge.taken()] == [1, 2, 3, 4, 5]
    assert sorted(answer.source[-5:] for answer in running.shown) == [f"{n}.jpg" for n in range(5)]
    assert all(answer.round_trip_ms > 0 for answer in running.shown)
    answers = recorded(running.config.state_dir)
    assert {answer.photo_id for answer in answers} == {photo.photo_id for photo in edge.taken()}
    assert (len(answers), counters["photo.accepted"], counters["photo.answered"]) == (5, 5, 5)


async def test_the_count_ends_the_agent_at_once(edge, agent):
    """After the last photo the agent does not wait for another interval."""
    await agent(camera="drawn", interval_s=3600.0, count=1).ended()
    assert len(edge.taken()) == 1


async def test_photos_carry_their_expiry(edge, agent):
    """With `expires_s` set, each photo carries the time after which its result is useless."""
    before = now_ms()
    await agent(camera="drawn", count=1, expires_s=60.0).ended()
    photo = edge.taken()[0]
    assert photo.expires_at_ms - photo.taken_at_ms == 60_000
    assert before <= photo.taken_at_ms <= now_ms()


async def test_a_photo_has_the_time_and_the_crop_of_its_frame(edge, agent):
    """A picture that is older than the capture has its own time, from which its expiry counts."""
    crop = (0.0, 0.25, 0.5, 1.0)
    agent(Scripted(Frame(jpeg(1), "stream", taken_at_ms=5_000, crop=crop)), expires_s=60.0)
    photo = await edge.photo(1)
    assert (photo.taken_at_ms, photo.expires_at_ms, photo.crop) == (5_000, 65_000, crop)


async def test_commands_take_photos_and_change_the_interval(edge, agent):
    """With interval 0 photos are taken only on command, until a command sets an interval."""
    camera = Scripted(*map(jpeg, range(9)))
    agent(camera, interval_s=0.0)
    await edge.status("online")
    await edge.command("capture")
    await edge.photo(1)
    assert camera.frames.qsize() == 8
    await edge.command("set-interval", interval_s=0.01)
    await edge.photo(9)


async def test_motion_triggers_a_photo(edge, agent):
    """Frames without motion are skipped, unless a command asks for a photo."""
    camera = Scripted(jpeg(1), jpeg(1), jpeg(1), forever=jpeg(2))
    agent(camera, motion=0.05, motion_every_s=0.01)
    await edge.photo(2)
    await eventually(camera.frames.empty)
    assert [photo.image for photo in edge.taken()] == [jpeg(1), jpeg(2)]
    await edge.command("capture")
    assert (await edge.photo(3)).image == jpeg(2)


async def test_a_heartbeat_is_sent_without_motion(edge, agent):
    """With a heartbeat, a still scene gives a photo after that time too."""
    camera = Scripted(*[jpeg(1)] * 1000)
    agent(camera, motion=0.05, motion_every_s=0.001, heartbeat_s=0.05)
    assert (await edge.photo(3)).image == jpeg(1)
    assert camera.frames.qsize() < 997  # not every frame


async def test_motion_is_not_sent_more_often_than_asked_for(edge, agent):
    """Frames that move within the pause are skipped, unless a command asks for a photo."""
    camera = Scripted(*map(jpeg, range(5)), forever=jpeg(7))
    agent(camera, motion=0.05, motion_every_s=0.01, motion_pause_s=3600.0)
    await eventually(camera.frames.empty)
    assert (await edge.photo(1)).image == jpeg(0)
    await edge.command("capture")
    assert (await edge.photo(2)).image == jpeg(7)


async def test_a_driver_that_is_stuck_ends_the_agent(edge, agent):
    """Only a new process helps, so that this one ends and its supervisor starts another one."""
    camera = Scripted(jpeg(1))
    running = agent(camera)
    await edge.photo(1)
    camera.frames.put_nowait(CameraStuckError("camera picamera: no answer in 10 s; its driver hangs"))
    with pytest.raises(ExceptionGroup) as ended:
        await running.ended()
    assert ended.group_contains(CameraStuckError, match="its driver hangs")
    assert (await edge.status("offline")).reason == "it was stopped"


async def test_a_broken_frame_counts_as_motion(edge, agent):
    """A frame that cannot be decoded is published, so that the edge rejects it with a reason."""
    agent(Scripted(jpeg(1), b"\xff\xd8 broken", jpeg(2)), motion=0.05, motion_every_s=0.01)
    assert (await edge.photo(2)).image == b"\xff\xd8 broken"
    assert (await edge.photo(3)).image == jpeg(2)


async def test_a_deferred_result_is_reported_and_not_recorded(edge, agent):
    """A deferred result is reported; the photo stays in the outbox until the final one, which is recorded."""
    edge.reply = lambda photo: [result(photo, "deferred", reason="no model"), result(photo)]
    running = agent(camera="drawn", count=1)
    await running.ended()
    assert [answer.result.status for answer in running.shown] == ["deferred", "ok"]
    assert [answer.status for answer in recorded(running.config.state_dir)] == ["ok"]


async def test_a_rejection_is_final(edge, agent):
    """A rejected result is recorded, and the photo is not sent again."""
    edge.reply = lambda photo: [result(photo, "rejected", code="corrupt-image")]
    running = agent(camera="drawn", count=1, outbox=EAGER)
    await running.ended()
    assert [answer.code for answer in recorded(running.config.state_dir)] == ["corrupt-image"]


async def test_g1_a_duplicate_result_is_recorded_once(edge, agent):
    """The first of two results is reported and recorded, the second one is only counted."""
    edge.reply = lambda photo: [result(photo), result(photo, label="dog")]
    running = agent(Scripted(jpeg(1), jpeg(2)), count=2)
    counters = await running.ended()
    assert [answer.label for answer in recorded(running.config.state_dir)] == ["cat", "cat"]
    assert len(running.final()) == 2
    assert counters["photo.answered_again"] >= 1


async def test_g1_a_photo_without_a_result_is_sent_again(edge, agent):
    """The same photo is sent again until its result arrives."""
    edge.reply = lambda photo: [result(photo)] if len(edge.photos) == 3 else []
    running = agent(camera="drawn", count=1, outbox=EAGER)
    await running.ended()
    assert len(edge.photos) >= 3
    assert len({photo.photo_id for photo in edge.taken()}) == 1
    assert len(recorded(running.config.state_dir)) == 1


async def test_g3_a_full_outbox_degrades_the_device(edge, agent):
    """Refused photos are counted, and the status is degraded until the outbox has room."""
    edge.reply = lambda photo: []
    camera = Scripted(jpeg(0))
    with capture_logs() as logs:
        running = agent(camera, outbox=OutboxLimits(max_messages=2, resend_first_s=0.2, resend_cap_s=0.2))
        await edge.photo(1)
        for number in range(1, 6):
            camera.frames.put_nowait(jpeg(number))
        assert "outbox is full" in (await edge.status("degraded")).reason
        await eventually(lambda: sum(entry["event"] == "photo.refused" for entry in logs) == 4)
    edge.reply = lambda photo: [result(photo)]
    await eventually(lambda: len(running.final()) == 2)
    camera.frames.put_nowait(jpeg(7))
    status = await edge.status("online")
    assert status.reason is None
    assert status.counters["photo.refused"] == 4
    await eventually(lambda: len(running.final()) == 3)


async def test_g3_a_photo_too_large_for_the_broker_is_refused(edge, agent):
    """The broker would drop it without an error, so the agent counts it as refused and continues."""
    camera = Scripted(jpeg(1))
    running = agent(camera, count=3)
    await edge.photo(1)
    for frame in (b"\xff\xd8" + bytes(MAX_PAYLOAD_BYTES), jpeg(3)):
        camera.frames.put_nowait(frame)
    counters = await running.ended()
    assert counters["photo.refused"] == 1
    assert [photo.sequence for photo in edge.taken()] == [1, 3]
    await eventually(lambda: any("at most 8388608" in (status.reason or "") for status in edge.statuses))


async def test_a_camera_that_fails_later_is_retried(edge, agent, monkeypatch):
    """A camera failure degrades the device until the camera delivers again."""
    monkeypatch.setattr(agent_module, "_CAMERA_RETRY_S", 0.01)
    broken = CameraError("camera usb:0 delivered no frame")
    camera = Scripted(jpeg(1))
    agent(camera)
    await edge.photo(1)
    for frame in (broken, broken):
        camera.frames.put_nowait(frame)
    assert (await edge.status("degraded")).reason == "camera usb:0 delivered no frame"
    camera.frames.put_nowait(jpeg(2))
    assert (await edge.photo(2)).image == jpeg(2)
    assert (await edge.status("online")).counters["camera.failed"] == 2
    states = [state for state, _ in itertools.groupby(edge.statuses, lambda status: status.state)]
    assert states == ["online", "degraded", "online"]


async def test_a_camera_that_fails_at_the_start_ends_the_agent(edge, agent):
    """A camera that fails on the first capture is a configuration error and is not retried."""
    running = agent(Scripted(CameraError("camera usb:0 delivered no frame")))
    with pytest.raises(ExceptionGroup) as ended:
        await running.ended()
    assert ended.group_contains(CameraError, match="usb:0")


async def test_g4_malformed_results_and_commands_are_skipped(edge, agent):
    """After invalid messages on its topics the agent still takes photos and records results."""
    camera = Scripted()
    running = agent(camera)
    await edge.status("online")
    for topic in (RESULT, COMMAND):
        for payload in (b"", b"{}", b"\xff\xd8", b'{"action": "explode"}'):
            await edge.bus.publish_bytes(topic.name(node=NODE, device=DEVICE), payload)
    await edge.command("set-interval")  # without an interval
    camera.frames.put_nowait(jpeg(1))
    await edge.photo(1)
    await eventually(lambda: len(running.final()) == 1)


async def test_results_of_an_earlier_run_are_recorded(edge, agent):
    """A photo left in the outbox is sent by the next run, and its result is reported without its origin."""
    edge.reply = lambda photo: []
    first = agent(Scripted(jpeg(1)))
    await edge.photo(1)
    first.task.cancel()
    await edge.status("offline")
    edge.reply = lambda photo: [result(photo)]
    second = agent(Scripted(CameraError("unused")), interval_s=0.0)
    await eventually(lambda: len(second.final()) == 1)
    assert (second.shown[0].source, second.shown[0].round_trip_ms) == ("", None)


async def test_g3_the_recorded_results_are_bounded(edge, agent, folder):
    """Only the newest `answers_kept` results are kept."""
    running = agent(camera=folder, answers_kept=2)
    await running.ended()
    newest = [answer.result.photo_id for answer in running.shown][-2:]
    assert [answer.photo_id for answer in recorded(running.config.state_dir)] == newest
