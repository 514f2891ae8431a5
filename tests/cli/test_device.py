import json

import pytest
from structlog.testing import capture_logs

from cli import device
from cli.output import OutputError
from device.agent import PhotoResult
from schemas.messages import Photo
from tests.cli.conftest import gleaner, start
from tests.conftest import jpeg
from tests.device.conftest import DEVICE, NODE, result

PHOTO = Photo(photo_id="0123456789abcdef" * 2, node=NODE, device=DEVICE, image=b"x")


def test_the_table_has_a_row_per_result(capsys):
    """A row has the photo id, result, confidence, round trip, harvest lane and source."""
    row = device._table()
    row(PhotoResult(result(PHOTO, harvest="auto"), "cats/1.jpg", "cat", 12.4))
    row(PhotoResult(result(PHOTO, "rejected", code="corrupt-image")))
    row(PhotoResult(result(PHOTO, "deferred", reason="no model")))
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split() == ["photo", "result", "conf.", "ms", "harvest", "source"]
    assert rows[0].split() == ["01234567", "cat", "90%", "12", "auto", "cats/1.jpg"]
    assert rows[1].split() == ["01234567", "rejected:", "corrupt-image"]
    assert rows[2].split() == ["01234567", "deferred:", "no", "model"]


def test_results_that_cannot_be_printed_stop_nothing():
    """A full disk behind standard output is logged once, until a result is printed again."""
    answers = [OutputError("full"), OutputError("full"), None, OutputError("full")]

    def show(_):
        if (answer := answers.pop(0)) is not None:
            raise answer

    shown = device._printing(show)
    with capture_logs() as logs:
        for _ in range(4):
            shown(PhotoResult(result(PHOTO)))
    assert [entry["log_level"] for entry in logs] == ["warning", "debug", "warning"]
    assert {entry["event"] for entry in logs} == {"result.not_printed"}


async def test_output_to_a_pipe_is_json_lines(edge, at, tmp_path):
    """Each line is the Result, with the source, the true class and the round trip."""
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
    """A folder without photos and an unknown camera are errors with code 1."""
    for camera, words in ((f"folder:{tmp_path}", "no photos in"), ("webcam", "or picamera")):
        done = await gleaner("device", "--camera", camera, "--state-dir", tmp_path / "state", *at)
        assert done.code == 1
        assert words in done.sentence


async def test_a_second_agent_on_a_state_folder_is_an_error(edge, at, tmp_path):
    """It would publish every photo twice; it exits with 75, since the first agent may end."""
    words = ("device", "--interval", "0", "--state-dir", tmp_path, *at)
    first = await start(*words)
    await edge.status("online")
    second = await gleaner(*words)
    first.terminate()
    await first.wait()
    assert second.code == 75
    assert "database is locked" in second.sentence


async def test_an_unusable_state_folder_is_one_sentence(at):
    """The error has the path."""
    done = await gleaner("device", "--state-dir", "/proc/state", *at)
    assert done.code == 75
    assert "/proc/state" in done.sentence


@pytest.mark.parametrize(
    ("option", "value", "code", "words"),
    [
        ("--size", "1280", 2, "expected WIDTHxHEIGHT, such as 1280x960, got '1280'"),
        ("--size", "0x0", 2, "expected WIDTHxHEIGHT"),
        ("--crop", "0,0,1", 2, "expected four numbers L,T,R,B"),
        ("--crop", "0,0,2,1", 2, "expected a number from 0 to 1, got '2'"),
        (
            "--crop",
            "0.5,0,0.5,1",
            1,
            "crop: expected left < right and top < bottom, got [0.5",
        ),
        ("--quality", "0", 1, "quality"),
        ("--heartbeat", "-1", 1, "heartbeat_s"),
    ],
)
def test_an_option_of_the_camera_with_a_wrong_value_is_one_sentence(called, option, value, code, words):
    """The sentence has the form that is expected, or names the field; no camera is opened."""
    done = called("device", f"{option}={value}")
    assert done.code == code
    assert words in done.err
    assert "Traceback" not in done.err


def test_discovery_needs_tls(called):
    """Anyone in a network can announce a broker, so it is found only where its certificate is checked."""
    assert "--discover needs TLS" in called("device", "--discover").sentence
