"""Whole-file writes are complete or not done, and durable."""

import os
import stat
from pathlib import Path

import pytest

from bus.files import atomic_file
from bus.files.atomic_file import sync_folder, write_atomic
from tests.conftest import fill

STEPS = ("open", "write", "fsync", "rename", "fsync")


class KilledError(BaseException):
    """Simulates a kill; derived from BaseException, so that nothing handles it."""


class Recorder:
    """Records the system calls of a write and ends it before one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, str]] = []
        self.kill_before: int | None = None
        self._paths: dict[int, str] = {}
        self._os_open, self._fsync, self._fdopen, self._rename = os.open, os.fsync, os.fdopen, Path.rename
        monkeypatch.setattr(os, "open", self._record_open)
        monkeypatch.setattr(os, "fsync", self._record_fsync)
        monkeypatch.setattr(os, "fdopen", self._record_fdopen)
        monkeypatch.setattr(Path, "rename", lambda path, target: self._record_rename(path, target))  # noqa: PLW0108  # a bound method gets no path

    def _record(self, call: str, name: str) -> None:
        if len(self.calls) == self.kill_before:
            raise KilledError
        self.calls.append((call, name))

    def _record_open(self, path: Path, flags: int, *arguments: int) -> int:
        if not flags & os.O_DIRECTORY:
            self._record("open", Path(path).name)
        descriptor = self._os_open(path, flags, *arguments)
        self._paths[descriptor] = Path(path).name
        return descriptor

    def _record_fdopen(self, descriptor: int, mode: str):
        file = self._fdopen(descriptor, mode)
        try:
            self._record("write", self._paths[descriptor])
        except KilledError:
            file.close()
            raise
        return file

    def _record_fsync(self, descriptor: int) -> None:
        self._record("fsync", self._paths[descriptor])
        self._fsync(descriptor)

    def _record_rename(self, path: Path, target: Path) -> Path:
        self._record("rename", path.name)
        return self._rename(path, target)


@pytest.fixture
def recorder(monkeypatch) -> Recorder:
    return Recorder(monkeypatch)


def test_content_and_name_are_synced_in_order(tmp_path, recorder):
    """The file is synced before the rename, and its folder after it."""
    write_atomic(tmp_path / "state.json", b"new")
    assert recorder.calls == [
        ("open", "state.json.tmp"),
        ("write", "state.json.tmp"),
        ("fsync", "state.json.tmp"),
        ("rename", "state.json.tmp"),
        ("fsync", tmp_path.name),
    ]


@pytest.mark.parametrize("step", range(len(STEPS)), ids=[f"{i}-{name}" for i, name in enumerate(STEPS)])
@pytest.mark.parametrize("before", [None, b"old"], ids=["new-file", "existing-file"])
def test_a_kill_between_steps_leaves_old_or_new_content(tmp_path, recorder, before, step):
    """A write that is killed before any step leaves the old content, or after the rename the new one."""
    path = tmp_path / "state.json"
    if before is not None:
        path.write_bytes(before)
        recorder.calls.clear()
    recorder.kill_before = step
    with pytest.raises(KilledError):
        write_atomic(path, b"new")
    renamed = step > STEPS.index("rename")
    content = path.read_bytes() if path.exists() else None
    assert content == (b"new" if renamed else before)
    recorder.kill_before = None
    write_atomic(path, b"newer")
    assert path.read_bytes() == b"newer"
    assert [file.name for file in tmp_path.iterdir()] == ["state.json"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_the_file_has_its_mode_from_the_start(tmp_path, monkeypatch, mode):
    """The file is created with its mode, so that a secret is never readable by others, not even briefly."""
    modes = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    umask = os.umask(0)
    try:
        (tmp_path / "key.tmp").write_bytes(b"left by a killed writer")
        (tmp_path / "key.tmp").chmod(0o666)
        write_atomic(tmp_path / "key", b"secret", mode=mode)
    finally:
        os.umask(umask)
    assert modes == [mode]
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == mode


def test_missing_folders_are_created(tmp_path):
    """Parent folders of the file are created."""
    write_atomic(tmp_path / "a" / "b" / "file", b"content")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"content"


def test_a_failed_write_keeps_the_old_content(tmp_path, monkeypatch):
    """An OSError of the disk leaves the previous content."""
    path = tmp_path / "state.json"
    path.write_bytes(b"old")

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(atomic_file.os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"


def test_syncing_a_missing_folder_is_an_error(tmp_path):
    """`sync_folder` of a path that is not a folder raises OSError."""
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(OSError, match=path.name):
            sync_folder(path)


def test_g3_a_write_that_fails_leaves_nothing_behind(small_disk):
    """G3: on a full disk the new part would take the last of the room; the old content stays."""
    path = small_disk / "record"
    write_atomic(path, b"old")
    fill(small_disk, leave_bytes=100_000)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, bytes(200_000))
    assert path.read_bytes() == b"old"
    assert sorted(one.name for one in small_disk.iterdir()) == ["filler", "record"]
