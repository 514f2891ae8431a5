import json

import pytest

from schemas.codec import MAX_PAYLOAD_BYTES
from tests.cli.conftest import gleaner
from tests.conftest import jpeg
from tests.device.conftest import result


@pytest.fixture
def folder(tmp_path):
    """Three photos, two folders deep."""
    path = tmp_path / "pets"
    for number, name in enumerate(("a.jpg", "cats/b.JPEG", "cats/old/c.png")):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(jpeg(number))
    (path / "notes.txt").write_text("no photo")
    return path


async def test_one_photo_is_one_line(edge, at, folder):
    """The answer stands behind the file's name; all is well, so the exit code is 0."""
    edge.reply = lambda photo: [result(photo, model="pets", model_version=3, edge_ms=12.4)]
    done = await gleaner("send", folder / "a.jpg", *at, "--name", "ann")
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{folder}/a.jpg: cat 90.0%  pets 3 12 ms\n"
    assert (edge.photos[0].image, edge.photos[0].device) == (jpeg(0), "ann")


async def test_a_folder_ends_with_a_summary(edge, at, folder):
    """All JPEG and PNG files below it are sent; the last line counts the answers."""
    edge.reply = lambda photo: [result(photo, label="dog" if photo.image == jpeg(2) else "cat")]
    done = await gleaner("send", folder, *at)
    assert done.code == 0
    *lines, summary = done.out.splitlines()
    assert sorted(line.partition(":")[0][len(str(folder)) :] for line in lines) == [
        "/a.jpg",
        "/cats/b.JPEG",
        "/cats/old/c.png",
    ]
    assert summary.startswith("3 photos in ")
    assert summary.endswith(" s: 2 cat, 1 dog")


async def test_json_is_a_line_of_the_result_each(edge, at, folder):
    """For pipes: the Result with its source, and no summary."""
    done = await gleaner("send", folder, "--json", *at)
    results = [json.loads(line) for line in done.out.splitlines()]
    assert [(line["status"], line["label"]) for line in results] == [("ok", "cat")] * 3
    assert {line["source"] for line in results} == {
        f"{folder}/{name}" for name in ("a.jpg", "cats/b.JPEG", "cats/old/c.png")
    }


async def test_a_rejected_photo_is_a_failure(edge, at, folder):
    """The code of the rejection is the answer, and the exit code is 1."""
    edge.reply = lambda photo: [result(photo, "rejected", code="corrupt-image")]
    done = await gleaner("send", folder / "a.jpg", *at)
    assert (done.code, done.err) == (1, "")
    assert "a.jpg: rejected: corrupt-image" in done.out


async def test_deferred_is_waited_out(edge, at, folder):
    """A deferred answer is none yet; the final one is printed."""
    edge.reply = lambda photo: [result(photo, "deferred", reason="no model"), result(photo)]
    done = await gleaner("send", folder / "a.jpg", *at)
    assert (done.code, len(done.out.splitlines())) == (0, 1)
    assert "cat" in done.out


async def test_what_cannot_be_sent_is_said_and_the_rest_goes(edge, at, folder):
    """Unreadable, empty and too large files are one sentence each; the others are answered."""
    (folder / "gone.jpg").symlink_to("nowhere")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "huge.jpg").write_bytes(b"\xff\xd8" + bytes(MAX_PAYLOAD_BYTES))
    done = await gleaner("send", folder, *at)
    assert done.code == 1
    said = {
        line.partition(": ")[2].partition(": ")[0].rpartition("/")[2]: line for line in done.err.splitlines()
    }
    assert "expected a readable file, got No such file" in said.pop("gone.jpg")
    assert "expected a photo, got an empty file" in said.pop("empty.jpg")
    assert "expected at most 8388608 bytes" in said.pop("huge.jpg")
    assert said == {}
    assert "6 photos" in done.out
    assert "3 cat" in done.out
    assert "3 unreadable" in done.out


@pytest.mark.parametrize(
    ("path", "words"), [("none.jpg", "expected a file or folder, got nothing there"), (".", "got none")]
)
def test_nothing_to_send_is_said_before_connecting(called, tmp_path, path, words):
    """A path that is not there, and a folder without photos."""
    done = called("send", tmp_path / path)
    assert done.code == 1
    assert words in done.sentence


async def test_without_a_broker_it_says_so(nowhere, folder):
    """One sentence with the address, what to try and why, and the exit code that says: later."""
    done = await gleaner("send", folder, *nowhere, "--timeout", "1")
    assert done.code == 75
    said = "broker 127.0.0.1:1: expected a connection within 1 s (try `gleaner doctor`), got "
    assert done.sentence.startswith(f"gleaner send: {said}")
    assert "Connection refused" in done.sentence


async def test_without_an_edge_it_says_so(at, folder):
    """No answer within the time-out is said per photo."""
    done = await gleaner("send", folder / "a.jpg", *at, "--timeout", "1")
    assert done.code == 1
    assert done.sentence == f"{folder}/a.jpg: no answer within 1 s (try `gleaner doctor`)"
