import json
import os

import pytest

from bus.mqtt import session
from schemas.codec import MAX_PAYLOAD_BYTES
from tests.cli.conftest import gleaner
from tests.conftest import jpeg
from tests.device.conftest import NODE, result


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
    """The line has the file and its result, and the exit code is 0."""
    edge.reply = lambda photo: [result(photo, model="pets", model_version=3, edge_ms=12.4)]
    done = await gleaner("send", folder / "a.jpg", *at, "--name", "ann")
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{folder}/a.jpg: cat 90.0%  pets 3 12 ms\n"
    assert (edge.photos[0].image, edge.photos[0].device) == (jpeg(0), "ann")


async def test_a_folder_ends_with_a_summary(edge, at, folder):
    """All JPEG and PNG files below the folder are sent; the last line counts the results."""
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


async def test_json_prints_one_result_per_line(edge, at, folder):
    """Each line is a Result with its source; there is no summary."""
    done = await gleaner("send", folder, "--json", *at)
    results = [json.loads(line) for line in done.out.splitlines()]
    assert [(line["status"], line["label"]) for line in results] == [("ok", "cat")] * 3
    assert {line["source"] for line in results} == {
        f"{folder}/{name}" for name in ("a.jpg", "cats/b.JPEG", "cats/old/c.png")
    }


async def test_a_rejected_photo_is_a_failure(edge, at, folder):
    """The line has the code of the rejection, and the exit code is 1."""
    edge.reply = lambda photo: [result(photo, "rejected", code="corrupt-image")]
    done = await gleaner("send", folder / "a.jpg", *at)
    assert (done.code, done.err) == (1, "")
    assert "a.jpg: rejected: corrupt-image" in done.out


async def test_a_deferred_result_is_not_final(edge, at, folder):
    """Only the final result is printed."""
    edge.reply = lambda photo: [result(photo, "deferred", reason="no model"), result(photo)]
    done = await gleaner("send", folder / "a.jpg", *at)
    assert (done.code, len(done.out.splitlines())) == (0, 1)
    assert "cat" in done.out


async def test_unusable_files_are_reported_and_the_others_sent(edge, at, folder):
    """An unreadable, an empty and a too large file, and a FIFO, are one error line each."""
    os.mkfifo(folder / "fifo.jpg")
    (folder / "gone.jpg").symlink_to("nowhere")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "huge.jpg").write_bytes(b"\xff\xd8" + bytes(MAX_PAYLOAD_BYTES))
    done = await gleaner("send", folder, *at)
    assert done.code == 1
    fifo, gone, empty, huge = sorted(line.replace(f"{folder}/", "") for line in done.err.splitlines())
    assert gone == "gleaner send: cannot read gone.jpg: No such file or directory"
    assert fifo == "gleaner send: cannot read fifo.jpg: not a regular file"
    assert empty == "gleaner send: cannot send empty.jpg: the file is empty"
    assert huge.startswith("gleaner send: size of huge.jpg: expected at most 8388608 bytes, got 8388")
    assert "7 photos" in done.out
    assert "3 cat" in done.out
    assert "4 unreadable" in done.out


@pytest.mark.parametrize(
    ("path", "words"), [("none.jpg", "there is no file or folder"), (".", "no JPEG or PNG files in")]
)
def test_nothing_to_send_is_an_error_before_connecting(called, tmp_path, path, words):
    """A missing path and a folder without photos are errors with code 1."""
    done = called("send", tmp_path / path)
    assert done.code == 1
    assert words in done.sentence


async def test_without_a_broker_it_exits_with_75(nowhere, folder):
    """The error has the address, the reason and what to try."""
    done = await gleaner("send", folder, *nowhere, "--timeout", "1")
    assert done.code == 75
    assert done.sentence.startswith("gleaner send: no connection to 127.0.0.1:1 in 1 s: ")
    assert done.sentence.endswith("; try 'gleaner doctor'")
    assert "Connection refused" in done.sentence


async def test_without_an_edge_each_photo_times_out(at, folder):
    """A photo without a result in time is one error line."""
    done = await gleaner("send", folder / "a.jpg", *at, "--timeout", "3")
    assert done.code == 1
    assert done.sentence == f"{folder}/a.jpg: no result after 3 s; try 'gleaner doctor'"


async def test_why_a_photo_is_deferred_is_said_at_the_deadline(edge, at, folder):
    """A deferred result is not an answer, but its reason is what the sender needs."""
    edge.reply = lambda photo: [result(photo, "deferred", reason="model pets at x:1: UNAVAILABLE")]
    done = await gleaner("send", folder / "a.jpg", "--timeout", "3", *at)
    assert done.code == 1
    assert "no result after 3 s: deferred: model pets at x:1: UNAVAILABLE" in done.sentence


async def test_a_rejection_has_its_reason(edge, at, folder):
    """The code alone does not tell a user what to change."""
    edge.reply = lambda photo: [result(photo, "rejected", code="too-large", reason="at most 3 MiB, got 4")]
    done = await gleaner("send", folder / "a.jpg", *at)
    assert done.code == 1
    assert "rejected: too-large (at most 3 MiB, got 4)" in done.out


async def test_the_node_is_that_of_the_configuration(edge, address, folder, tmp_path):
    """On a machine with a device, its own configuration names broker and node."""
    own = tmp_path / "device.toml"
    own.write_text(f"node = '{NODE}'\n[broker]\nport = {address.port}\n")
    done = await gleaner("send", folder / "a.jpg", "--config", own)
    assert done.code == 0, done.err
    assert edge.photos[0].node == NODE


def test_a_broker_that_lets_nobody_in_is_not_waited_for(called, nowhere, monkeypatch, tmp_path):
    """`--timeout` is about results: as every command, it gives up connecting after ten seconds."""
    monkeypatch.setattr(session, "CONNECT_S", 0.2)
    (tmp_path / "1.jpg").write_bytes(jpeg())
    done = called("send", tmp_path / "1.jpg", *nowhere)
    assert (done.code, "no connection to 127.0.0.1:1 in 0.2 s" in done.sentence) == (75, True)
