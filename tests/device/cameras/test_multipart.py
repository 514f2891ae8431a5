import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device.cameras.base import CameraError
from device.cameras.multipart import MultipartSplitter, boundary_of
from tests.conftest import jpeg

PICTURES = [jpeg(number, (32, 24)) for number in range(3)]


def split(stream: bytes, boundary: str = "frame", step: int = 1000, max_bytes: int = 100_000) -> list[bytes]:
    splitter = MultipartSplitter(boundary, max_bytes)
    chunks = (stream[at : at + step] for at in range(0, len(stream), step))
    return [part.body for chunk in chunks for part in splitter.feed(chunk, 0)]


def parts(head: bytes, tail: bytes = b"\r\n") -> bytes:
    return b"".join(head.replace(b"LENGTH", b"%d" % len(image)) + image + tail for image in PICTURES)


LENGTH = b"Content-Type: image/jpeg\r\nContent-Length: LENGTH\r\n\r\n"
STREAMS = {
    "as in the RFC": ("frame", parts(b"--frame\r\n" + LENGTH)),
    "a quoted boundary": ('"frame"', parts(b"--frame\r\n" + LENGTH)),
    "the boundary announced with its hyphens": ("--frame", parts(b"--frame\r\n" + LENGTH)),
    "more hyphens than announced": ("frame", parts(b"----frame\r\n" + LENGTH)),
    "line feeds": ("frame", parts(b"--frame\nContent-Length: LENGTH\n\n", b"\n")),
    "lower case": ("frame", parts(b"--frame\r\ncontent-length:LENGTH\r\n\r\n")),
    "no line break after the picture": ("frame", parts(b"--frame\r\n" + LENGTH, b"")),
    "a preamble": ("frame", b"\r\nhello" * 5000 + parts(b"--frame\r\n" + LENGTH)),
    "no length": ("frame", parts(b"--frame\r\nContent-Type: image/jpeg\r\n\r\n") + b"--frame--\r\n"),
    "no headers": ("frame", parts(b"--frame\r\n\r\n") + b"--frame\r\n\r\n"),
    "no boundary announced": ("", parts(b"--anything\r\n" + LENGTH)),
    "neither a boundary nor a length": (
        "",
        parts(b"--anything\r\nContent-Type: image/jpeg\r\n\r\n") + b"--anything--\r\n",
    ),
    "another boundary than announced": ("frame", parts(b"--myboundary\r\n" + LENGTH)),
    "another boundary, and no length": (
        "frame",
        parts(b"--my boundary\r\nX-Time: 5\r\nContent-Type: image/jpeg\r\n\r\n") + b"--my boundary\r\n",
    ),
    "no hyphens": ("frame", parts(b"frame\r\n" + LENGTH)),
    "single quotes": ("'frame'", parts(b"--frame\r\n" + LENGTH)),
    "a boundary that is not UTF-8": ("fr\udce4me", parts(b"--fr\xe4me\r\n" + LENGTH)),
    "a boundary with a semicolon": ("fr;ame", parts(b"--fr;ame\r\n" + LENGTH)),
    "rubbish between parts": ("frame", parts(b"--frame\r\n" + LENGTH, b"\r\n\0rubbish\xff\r\n")),
    "lengths of zero": ("frame", parts(b"--frame\r\nContent-Length: 0\r\n\r\n") + b"--frame--\r\n"),
    "lengths that cut": ("frame", parts(b"--frame\r\nContent-Length: 200\r\n\r\n") + b"--frame--\r\n"),
}


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/x-mixed-replace;boundary=frame", "frame"),
        ("multipart/x-mixed-replace; Boundary = --frame ; charset=x", "--frame"),
        ('multipart/x-mixed-replace; charset=x; BOUNDARY="a;b"', "a;b"),
        ("multipart/x-mixed-replace; boundary='frame'", "frame"),
        ("multipart/x-mixed-replace; noboundary=1", ""),
        ("multipart/x-mixed-replace", ""),
    ],
)
def test_a_boundary_is_announced_as_any_parameter(content_type, boundary):
    """Its name may have any case, and its value quotes and white space around it."""
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize("name", STREAMS)
def test_the_streams_of_real_cameras_are_split(name):
    """Each way in which cameras write a stream gives its pictures byte for byte."""
    assert split(STREAMS[name][1], STREAMS[name][0]) == PICTURES


@given(name=st.sampled_from(sorted(STREAMS)), step=st.integers(1, 300))
def test_chunks_do_not_matter(name, step):
    """However a stream is cut into chunks, its parts are the same."""
    assert split(STREAMS[name][1], STREAMS[name][0], step) == PICTURES


def test_a_part_has_the_time_of_its_beginning():
    """A part that takes long to arrive is as old as its headers."""
    splitter = MultipartSplitter("frame", 1000)
    assert list(splitter.feed(b"--frame\r\nContent-Length: 4\r\n\r\nab", 3.0)) == []
    assert [part.began_at for part in splitter.feed(b"cd", 9.0)] == [3.0]


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (
            b"--frame\r\nContent-Length: 999999999999\r\n\r\n",
            "expected at most 100000 bytes, got 999999999999",
        ),
        (b"--frame\r\n\r\n" + bytes(200_000), "at most 100000 bytes"),
        (b"no boundary" * 20_000, "at most 100000 bytes"),
        (b"--frame\r\n" + b"X-Header: 1\r\n" * 2000, "more than 16384 bytes of headers"),
    ],
)
def test_a_stream_without_bounds_is_refused(stream, words):
    """Neither a part, nor headers, nor what is between parts fills the memory."""
    with pytest.raises(CameraError) as refusal:
        split(stream)
    assert words in str(refusal.value)


def test_a_stream_without_boundary_and_length_is_refused():
    """Its parts cannot be separated."""
    with pytest.raises(CameraError, match="neither a boundary nor the length"):
        split(b"--x\r\n\r\n" + PICTURES[0], "")


@given(stream=st.binary(max_size=500), boundary=st.text(max_size=8))
def test_no_stream_is_a_crash(stream, boundary):
    """Any bytes end in parts or in CameraError."""
    with contextlib.suppress(CameraError):
        split(b"--frame" + stream, boundary, 7)


@pytest.mark.parametrize("blank", [b" ", b"\t", b"-"])
def test_a_long_line_takes_no_time(blank):
    """A line of 64 KiB behind two hyphens is searched in well below a second, and the stream continues."""
    stream = b"\r\n--" + blank * 65_536 + b"\r\n" + parts(b"--frame\r\n" + LENGTH)
    began = time.process_time()
    assert split(stream, "frame", step=65_536) == PICTURES
    assert time.process_time() - began < 2
