"""Rules of bus/files/regular_file.py: files that end are read, others are refused at once."""

import errno
import os
import socket

import pytest

from bus.files.regular_file import read_regular


def test_a_file_is_read_whole(tmp_path):
    """Also through a link, and one of just the largest size."""
    (tmp_path / "a").write_bytes(b"1234")
    (tmp_path / "b").symlink_to("a")
    assert read_regular(tmp_path / "a", 4) == read_regular(tmp_path / "b", 4) == b"1234"


def test_a_larger_file_is_refused_unread(tmp_path):
    """A sparse file of a terabyte is not read at all."""
    with (tmp_path / "a").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(OSError, match="more than 10 bytes") as refusal:
        read_regular(tmp_path / "a", 10)
    assert refusal.value.errno == errno.EFBIG


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "socket"])
def test_what_is_no_file_is_refused_at_once(tmp_path, kind):
    """Reading a FIFO waits for a writer forever, and /dev/zero has no end."""
    path = tmp_path / "a.jpg"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(path))
    with pytest.raises(OSError):  # noqa: PT011  # a socket cannot be opened: the system's own sentence
        read_regular(path, 10)
