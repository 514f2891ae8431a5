import json

from cli import device
from device.agent import Answer
from schemas.messages import Photo
from tests.cli.conftest import gleaner, start
from tests.conftest import jpeg
from tests.device.conftest import DEVICE, NODE, result

PHOTO = Photo(photo_id="0123456789abcdef" * 2, node=NODE, device=DEVICE, image=b"x")


def test_the_table_has_a_row_for_each_answer(capsys):
    """On a terminal: photo, answer, confidence, round trip, harvest, source."""
    row = device._table()
    row(Answer(result(PHOTO, harvest="auto"), "cats/1.jpg", "cat", 12.4))
    row(Answer(result(PHOTO, "rejected", code="corrupt-image")))
    row(Answer(result(PHOTO, "deferred", reason="no model")))
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split() == ["photo", "answer", "sure", "ms", "harvest", "from"]
    assert rows[0].split() == ["01234567", "cat", "90%", "12", "auto", "cats/1.jpg"]
    assert rows[1].split() == ["01234567", "rejected:", "corrupt-image"]
    assert rows[2].split() == ["01234567", "deferred:", "no", "model"]


async def test_a_pipe_gets_json_lines(edge, at, tmp_path):
    """Elsewhere: the Result as JSON, with what the device knows of the photo."""
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "photos" / "cat" / "1.jpg").write_bytes(jpeg(1))
    (tmp_path / "photos" / "dog").mkdir()
    (tmp_path / "photos" / "dog" / "2.jpg").write_bytes(jpeg(2))
    camera = ("--camera", f"folder:{tmp_path}/photos", "--interval", "0.01")
    done = await gleaner("device", *camera, "--state-dir", tmp_path / "state", *at)
    lines = sorted((json.loads(line) for line in done.out.splitlines()), key=lambda line: line["source"])
    assert done.code == 0
    assert [(line["status"], line["label"], line["truth"]) for line in lines] == [
        ("ok", "cat", "cat"),
        ("ok", "cat", "dog"),
    ]
    assert lines[0]["source"] == f"{tmp_path}/photos/cat/1.jpg"
    assert lines[0]["round_trip_ms"] > 0


async def test_a_camera_that_does_not_open_is_one_sentence(at, tmp_path):
    """A folder without photos, and a camera that nobody knows."""
    for camera, words in ((f"folder:{tmp_path}", "expected JPEG or PNG files"), ("webcam", "or picamera")):
        done = await gleaner("device", "--camera", camera, "--state-dir", tmp_path / "state", *at)
        assert done.code == 1
        assert words in done.sentence


async def test_two_agents_on_one_state_folder_are_refused(edge, at, tmp_path):
    """The second would send everything twice: it is told to come again later."""
    words = ("device", "--interval", "0", "--state-dir", tmp_path, *at)
    first = await start(*words)
    await edge.status("online")
    second = await gleaner(*words)
    first.terminate()
    await first.wait()
    assert second.code == 75
    assert "expected a writable database, got database is locked" in second.sentence


async def test_a_state_folder_that_cannot_be_is_one_sentence(at):
    """A path that cannot be made is named."""
    done = await gleaner("device", "--state-dir", "/proc/state", *at)
    assert done.code == 75
    assert "/proc/state" in done.sentence
