import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bus import systemd
from bus.outbox.sqlite import Database, StorageError
from tests.conftest import DEADLINE_S, ROOT
from tests.nodes import toml


class Supervisor:
    """The socket at which systemd listens."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(DEADLINE_S)

    def next(self) -> list[str]:
        """Wait for a notification and return its lines."""
        return self._socket.recv(4096).decode().split("\n")

    def until(self, line: str) -> list[list[str]]:
        """Wait for a notification with this line; return it with those before it."""
        seen = [self.next()]
        while line not in seen[-1]:
            seen.append(self.next())
        return seen

    def is_silent(self) -> bool:
        """Return True if no notification is waiting."""
        self._socket.settimeout(0)
        try:
            return not self._socket.recv(4096)
        except BlockingIOError:
            return True
        finally:
            self._socket.settimeout(DEADLINE_S)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def supervisor(tmp_path, monkeypatch) -> Iterator[Supervisor]:
    """Systemd's socket, named to this process."""
    listening = Supervisor(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(listening.path))
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    yield listening
    listening.close()


@contextlib.asynccontextmanager
async def reporting(*arguments):
    """Run the report as a service's task."""
    task = asyncio.create_task(systemd.report(*arguments))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_service_reports_ready_then_alive_then_stopping(supervisor):
    """`systemctl start` returns at READY=1, the watchdog is fed at once, and the end is announced."""
    async with reporting(lambda: None):
        assert await asyncio.to_thread(supervisor.next) == ["READY=1", "STATUS=ready"]
        assert await asyncio.to_thread(supervisor.next) == ["WATCHDOG=1", "STATUS=ready"]
    assert await asyncio.to_thread(supervisor.next) == ["STOPPING=1"]


async def test_a_service_becomes_ready_when_systemd_has_room(supervisor, monkeypatch):
    """At boot the queue of systemd's socket may be full: a notification that is lost is sent again."""
    monkeypatch.setattr("bus.systemd.sd_notify._REPEAT_S", 0.01)
    filled = 0
    while systemd.notify(f"STATUS={filled}"):
        filled += 1
    async with reporting(lambda: None) as task:
        await asyncio.sleep(0)  # the first one is lost
        assert not task.done()
        for _ in range(filled):
            assert supervisor.next()[0].startswith("STATUS=")
        seen = await asyncio.to_thread(supervisor.until, "WATCHDOG=1")
        assert seen[0] == ["READY=1", "STATUS=ready"]


async def test_a_service_that_hangs_does_not_feed_the_watchdog(supervisor):
    """Being scheduled is not enough: WATCHDOG=1 comes only after the part that could hang has answered."""
    hung = asyncio.Event()
    async with reporting(lambda: None, hung.wait):
        await asyncio.to_thread(supervisor.until, "READY=1")
        await asyncio.sleep(0)  # the report has reached the part that hangs
        assert supervisor.is_silent()
        hung.set()
        assert await asyncio.to_thread(supervisor.next) == ["WATCHDOG=1", "STATUS=ready"]


async def test_a_failure_that_is_retried_is_progress(supervisor):
    """A full disk is reported as degraded; a restart would not mend it."""

    async def fails() -> None:
        raise StorageError("disk full")

    async with reporting(lambda: "disk full", fails):
        seen = await asyncio.to_thread(supervisor.until, "WATCHDOG=1")
        assert seen[-1] == ["WATCHDOG=1", "STATUS=degraded: disk full"]


async def test_the_database_answers_by_its_thread(tmp_path):
    """The proof of progress passes through the thread and a transaction."""
    async with Database(tmp_path / "a.db", {}) as database:
        await database.answered()


async def test_without_systemd_nothing_runs(monkeypatch):
    """Where nobody listens, the task ends at once."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    await asyncio.wait_for(systemd.report(lambda: None), DEADLINE_S)


def test_a_socket_that_is_gone_costs_nothing(monkeypatch, tmp_path):
    """Systemd restarts its own socket; a service continues."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "absent"))
    assert not systemd.notify(systemd.READY)


def test_an_abstract_socket_is_understood(monkeypatch):
    """Systemd may name a socket without a file, with an @ in front."""
    name = f"gleaner-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")
        listening.settimeout(DEADLINE_S)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        assert systemd.notify("READY=1", "STATUS=x")
        assert listening.recv(4096) == b"READY=1\nSTATUS=x"


@pytest.mark.parametrize(
    ("variables", "wanted_s"),
    [
        ({}, 10.0),
        ({"WATCHDOG_USEC": "30000000"}, 10.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 1.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, 10.0),
        ({"WATCHDOG_USEC": "0"}, 10.0),
        ({"WATCHDOG_USEC": "soon"}, 10.0),
    ],
)
def test_the_watchdog_is_fed_three_times_per_deadline(monkeypatch, variables, wanted_s):
    """The variables are systemd's; a deadline of another process is not ours."""
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert systemd.interval_s() == wanted_s


def test_a_status_is_one_short_line():
    """A reason with line breaks cannot add a line to the notification."""
    assert systemd.status("a\nREADY=1\n b") == "STATUS=degraded: a READY=1 b"
    assert len(systemd.status("x" * 1000)) < 250


def test_a_device_reports_to_systemd(supervisor, address, tmp_path):
    """The agent of a camera sends READY=1 and WATCHDOG=1 while it runs, and STOPPING=1 after SIGTERM."""
    config = {
        "camera": "drawn",
        "interval_s": 0,
        "state_dir": str(tmp_path / "state"),
        "broker": {"host": address.host, "port": address.port},
    }
    words = ["device", "--config", str(toml(config, tmp_path / "device.toml"))]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gleaner", *words],
            cwd=ROOT,
            env=os.environ | {"WATCHDOG_USEC": "3000000"},
            stdout=log,
            stderr=log,
        )
        try:
            assert "READY=1" in supervisor.next()
            supervisor.until("WATCHDOG=1")
            process.send_signal(signal.SIGTERM)
            supervisor.until("STOPPING=1")
            assert process.wait(DEADLINE_S) == 0, (tmp_path / "log").read_text()
        finally:
            process.kill()
            process.wait()
