import asyncio

import cv2
import numpy as np
import pytest

from bus.mqtt.presence import now_ms
from device.cameras import http_camera
from device.cameras.base import CameraError
from device.cameras.http_camera import HttpCamera
from tests.conftest import eventually, jpeg
from tests.device.cameras.servers import PASSWORD, USER, Request, camera, stream


async def test_each_photo_is_a_new_request_of_the_picture():
    """A one-shot address is requested for each photo, with its query, and passed on byte for byte."""
    pictures = iter(range(100))
    path = "/capture?channel=1&subtype=0"
    with camera(lambda request: request.respond(jpeg(next(pictures)))) as server:
        async with HttpCamera(server.url(path + "#part")) as opened:
            taken = [await opened.capture() for _ in range(3)]
    assert [frame.image for frame in taken] == [jpeg(number) for number in range(3)]
    assert server.paths == [path] * 3
    assert opened.live


async def test_a_photo_of_a_stream_is_its_newest_picture_with_its_time():
    """Pictures that nobody asked for are dropped, and the photo's time is that of its picture."""
    with camera(stream()) as server:
        async with HttpCamera(server.url("/video")) as opened:
            await opened.capture()
            await eventually(lambda: len(server.sent) >= 60)
            before = len(server.sent)
            frame = await opened.capture()
            number = list(server.sent).index(frame.image)
    assert number >= before // 2  # read one after the other, it would be the second
    assert server.sent[frame.image] <= frame.taken_at_ms + 1
    assert frame.taken_at_ms <= now_ms()
    assert len(server.paths) == 1


async def test_no_picture_of_a_stream_is_taken_twice():
    """A capture waits for the next picture where the newest was taken already."""
    with camera(stream()) as server:
        async with HttpCamera(server.url("/video")) as opened:
            taken = [(await opened.capture()).image for _ in range(5)]
    assert len(set(taken)) == 5


async def test_a_stream_that_ends_is_opened_again_at_once():
    """A camera that sends one picture per connection, or restarts, loses no photo."""
    numbers = iter(range(100))

    def one(request):
        request.begin_stream()
        request.send_part(jpeg(next(numbers)))

    with camera(one) as server:
        async with HttpCamera(server.url("/video")) as opened:
            taken = [(await opened.capture()).image for _ in range(3)]
    assert taken == [jpeg(number) for number in range(3)]


async def test_a_stream_that_nobody_needs_is_closed(monkeypatch):
    """Between two photos that are far apart the camera sends nothing; the next one opens it again."""
    monkeypatch.setattr(http_camera, "_IDLE_S", 0.0)
    with camera(stream()) as server:
        async with HttpCamera(server.url("/video")) as opened:
            for number in range(1, 3):
                await opened.capture()
                await eventually(opened._reader.done)
                assert len(server.paths) == number


@pytest.mark.parametrize("auth", ["basic", "digest"])
async def test_user_and_password_are_sent_as_the_camera_asks(auth):
    """Basic and Digest work, and nothing is sent before the camera asks."""
    with camera(lambda request: request.respond(jpeg(1)), auth) as server:
        async with HttpCamera(server.url("/a?b=c", f"{USER}:{PASSWORD}@")) as opened:
            frame = await opened.capture()
    assert frame.image == jpeg(1)
    assert server.authorizations[0] == ""
    assert frame.source == f"http://***@127.0.0.1:{server.server_port}/a?b=***"


@pytest.mark.parametrize("auth", ["basic", "digest"])
async def test_a_wrong_password_is_one_sentence_without_it(auth):
    """The error has the camera's answer, but no password."""
    with camera(lambda request: request.respond(jpeg(1)), auth) as server:
        async with HttpCamera(server.url("/", f"{USER}:wr0ng-word@")) as opened:
            with pytest.raises(CameraError, match="answered 401") as refusal:
                await opened.capture()
    assert "wr0ng" not in str(refusal.value)
    assert USER not in str(refusal.value)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            lambda request: request.respond(b"<html>" + b"x" * 10_000, "text/html"),
            "text/html, which is not a pict",
        ),
        (lambda request: request.respond(b"", "image/jpeg"), "which is not a picture"),
        (lambda request: request.respond(b"gone", status=404), "answered 404"),
    ],
    ids=["page", "empty", "missing"],
)
async def test_an_address_without_a_picture_is_one_sentence(answer, words):
    """The error has what was answered instead."""
    with camera(answer) as server:
        async with HttpCamera(server.url("/x?token=s3cret")) as opened:
            with pytest.raises(CameraError) as refusal:
                await opened.capture()
    assert words in str(refusal.value)
    assert "s3cret" not in str(refusal.value)


async def test_a_camera_that_is_switched_off_is_one_sentence():
    """A refused connection is an error without the password."""
    with camera(stream()) as server:
        url = server.url("/", f"{USER}:{PASSWORD}@")
    async with HttpCamera(url) as opened:
        with pytest.raises(CameraError, match=r"camera http://\*\*\*@127.0.0.1") as refusal:
            await opened.capture()
    assert PASSWORD not in str(refusal.value)
    assert "cannot be reached: Connection refused; check the address" in str(refusal.value)


async def test_a_picture_that_never_ends_is_given_up(monkeypatch):
    """A part whose bytes stop coming fails after the timeout; the next capture opens the stream again."""
    monkeypatch.setattr(http_camera, "_CAPTURE_TIMEOUT_S", 0.3)

    def answer(request):
        request.begin_stream()
        if len(server.paths) > 1:
            monkeypatch.setattr(http_camera, "_CAPTURE_TIMEOUT_S", 60.0)
            stream_of_good = stream()
            stream_of_good(request)
        request.wfile.write(b"--frame\r\nContent-Length: 5000\r\n\r\n\xff\xd8\xff")
        request.server.closing.wait()

    with camera(answer) as server:
        async with HttpCamera(server.url("/video")) as opened:
            with pytest.raises(CameraError, match=r"no complete picture in 0\.3 s"):
                await opened.capture()
            monkeypatch.setattr(http_camera, "_CAPTURE_TIMEOUT_S", 60.0)
            assert (await opened.capture()).image in server.sent


@pytest.mark.parametrize("length", [True, False])
async def test_a_picture_without_bounds_is_refused(monkeypatch, length):
    """No part, and no whole response, fills the memory."""
    monkeypatch.setattr(http_camera, "MAX_PICTURE_BYTES", 100_000)

    def answer(request):
        if length:
            request.respond(b"\xff\xd8\xff" + bytes(200_000))
            return
        request.begin_stream()
        request.wfile.write(b"--frame\r\n\r\n\xff\xd8\xff")
        while not request.server.closing.is_set():
            request.wfile.write(bytes(10_000))

    with camera(answer) as server:
        async with HttpCamera(server.url("/video")) as opened:
            with pytest.raises(CameraError, match="100000 bytes"):
                await opened.capture()


async def test_video_over_http_is_read_by_opencv(tmp_path):
    """An address whose Content-Type is a video's is opened by OpenCV."""
    path = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 5.0, (64, 48))
    for _ in range(30):
        writer.write(np.full((48, 64, 3), 120, np.uint8))
    writer.release()
    head, movi, frames = path.read_bytes().partition(b"movi")
    frames = frames[: frames.index(b"idx1")]
    endless = head[:4] + b"\xff\xff\xff\x7f" + head[8:-4] + b"\xff\xff\xff\x7f"

    def answer(request: Request) -> None:
        """Send the video over and over: one that ends may end while a photo is asked for."""
        request.send_response(200)
        request.send_header("Content-Type", "video/x-msvideo")
        request.end_headers()
        request.wfile.write(endless + movi)
        while not request.server.closing.wait(0.01):
            request.wfile.write(frames)

    with camera(answer) as server:
        async with HttpCamera(server.url("/clip.avi")) as opened:
            assert (await opened.capture()).image.startswith(b"\xff\xd8")


async def test_a_capture_that_is_cancelled_leaves_a_camera_that_works():
    """A cancelled capture closes nothing that the next one needs."""
    with camera(stream()) as server:
        async with HttpCamera(server.url("/video")) as opened:
            await opened.capture()
            cancelled = asyncio.create_task(opened.capture())
            await asyncio.sleep(0)
            cancelled.cancel()
            await asyncio.wait([cancelled])
            assert (await opened.capture()).image in server.sent


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"302 Found\r\nLocation: http://a..b/", "encoding with 'idna' codec failed"),
        (b"302 Found\r\nLocation: http://[::1", "redirects to an address that is not valid for HTTP"),
        (b"302 Found\r\nLocation: file:///etc/passwd", "redirects to an address that is not valid for HTTP"),
        (b'401 No\r\nWWW-Authenticate: Digest realm="\xff", nonce="\xe4"', "surrogates not allowed"),
        (b"200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: -5", "Content-Length"),
        (b"abc OK", "Bad status line"),
        (b"500 \xff\x1b[31m" + b"x" * 5000, "answered 500"),
        (b"200 OK\r\nContent-Type: \xff\x1b[31m/\xff", "which is not a picture"),
    ],
)
async def test_an_answer_that_makes_no_sense_is_one_sentence(head, words):
    """After any answer of a camera, the agent continues, and its log has one line without a password."""

    def answer(request):
        request.wfile.write(b"HTTP/1.1 " + head + b"\r\n\r\n")
        request.close_connection = True

    with camera(answer) as server:
        async with HttpCamera(server.url("/x", login=f"{USER}:{PASSWORD}@")) as opened:
            with pytest.raises(CameraError) as refusal:
                await opened.capture()
    assert words in str(refusal.value)
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 500
    assert PASSWORD not in str(refusal.value)


async def test_a_stream_is_split_by_what_it_has():
    """Its header may announce a boundary that is not text, and its parts may have another one."""

    def answer(request):
        head = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; BOUNDARY=fr\xe4me\r\n\r\n"
        part = b"--other\r\nContent-Type: image/jpeg\r\n\r\n" + jpeg(1) + b"\r\n"
        request.wfile.write(head + 2 * part)
        request.close_connection = True

    with camera(answer) as server:
        async with HttpCamera(server.url()) as opened:
            assert (await opened.capture()).image == jpeg(1)


@pytest.mark.parametrize("announced", [None, 1_000_000])
@pytest.mark.parametrize("closes", [True, False])
async def test_a_whole_picture_is_enough(monkeypatch, announced, closes):
    """A camera may announce no length or a wrong one, and keep the connection open; a cut one is not sent."""
    monkeypatch.setattr(http_camera, "_PAUSE_S", 0.05)
    monkeypatch.setattr(http_camera, "_CAPTURE_TIMEOUT_S", 0.4 if not closes else 20.0)
    length = b"" if announced is None else b"Content-Length: %d\r\n" % announced
    bodies = iter([jpeg(1) + b"\r\n", jpeg(1)[:-300]])

    def answer(request):
        request.wfile.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n" + length + b"\r\n" + next(bodies)
        )
        request.close_connection = True
        if not closes:
            request.server.closing.wait()

    with camera(answer) as server:
        async with HttpCamera(server.url()) as opened:
            assert (await opened.capture()).image == jpeg(1) + b"\r\n"
            if announced or not closes:
                with pytest.raises(CameraError):
                    await opened.capture()


async def test_each_photo_has_a_connection_of_its_own():
    """Even if the camera would keep it open: some close silently, and then every second photo failed."""

    def answer(request):
        head = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg(1))
        request.wfile.write(head + jpeg(1))
        ports.add(request.client_address[1])
        request.close_connection = False

    ports = set()
    with camera(answer) as server:
        async with HttpCamera(server.url()) as opened:
            assert [(await opened.capture()).image for _ in range(3)] == [jpeg(1)] * 3
    assert len(ports) == 3


async def test_jpegs_behind_each_other_are_photos():
    """Some cameras push them without a boundary and without an end."""

    def answer(request):
        request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n")
        while not request.server.closing.wait(0.01):
            request.wfile.write(jpeg(1))

    with camera(answer) as server:
        async with HttpCamera(server.url()) as opened:
            assert (await opened.capture()).image == jpeg(1)


async def test_a_session_of_a_camera_is_kept():
    """A camera that sends a cookie and redirects to itself gets the cookie; a loop is one sentence."""

    def answer(request):
        if "session=1" in request.headers.get("Cookie", "") and server.paths[-1] == "/x":
            request.respond(jpeg(1))
            return
        request.send_response(302)
        request.send_header("Set-Cookie", "session=1")
        request.send_header("Location", server.paths[-1])
        request.send_header("Content-Length", "0")
        request.end_headers()

    with camera(answer) as server:
        async with HttpCamera(server.url("/x")) as opened:
            assert (await opened.capture()).image == jpeg(1)
        async with HttpCamera(server.url("/y")) as opened:
            with pytest.raises(CameraError, match="redirects without end"):
                await opened.capture()


@pytest.mark.parametrize("part", ["X-Time: 1", "Content-Length: 0", "Content-Length: 300"])
async def test_a_stream_of_one_picture_with_no_right_length_is_read(part):
    """The end of the stream ends its last picture, and a length that cuts a picture is none."""

    def answer(request):
        request.begin_stream()
        request.wfile.write(f"--frame\r\nContent-Type: image/jpeg\r\n{part}\r\n\r\n".encode() + jpeg(1))
        request.close_connection = True

    with camera(answer) as server:
        async with HttpCamera(server.url()) as opened:
            assert [(await opened.capture()).image for _ in range(2)] == [jpeg(1)] * 2
