"""Secrets do not appear in logs, command lines or tracebacks."""

import asyncio
import os
import sys
from pathlib import Path

import msgspec
import pytest
import structlog

from bus import log
from bus.broker.process import BrokerProcess
from bus.config import PASSWORD_VARIABLE, Broker
from bus.mqtt.client import Bus
from cloud.collector.config import CollectorConfig
from device.config import DeviceConfig
from edge.config import EdgeConfig
from tests.conftest import DEADLINE_S, ROOT, eventually
from tests.sites import broker_of

SECRET = "correct-horse-battery-staple"


@pytest.fixture
def strict_port(tmp_path, mosquitto):
    """Port of a broker that requires a password and accepts none."""
    process = BrokerProcess(tmp_path / "broker", program=mosquitto)
    process.start()
    process.stop()
    conf = tmp_path / "broker/mosquitto.conf"
    text = conf.read_text().replace("allow_anonymous true", "allow_anonymous false")
    ready = tmp_path / "strict"
    ready.mkdir()
    (ready / "mosquitto.conf").write_text(text)
    with broker_of(ready, process.port, mosquitto):
        yield process.port


def commands(port: int, folder: Path) -> dict[str, tuple[str, ...]]:
    """Return the command lines of all services and a command, with a broker that refuses the password."""
    broker = ("--broker", f"127.0.0.1:{port}", "--username", "somebody")
    debug = ("--log-level", "debug")
    return {
        "device": ("device", "--state-dir", str(folder / "device"), *broker, *debug),
        "edge": ("edge", "--state-dir", str(folder / "edge"), "--serving", "127.0.0.1:1", *broker, *debug),
        "collector": ("cloud", "collect", "--dataset", str(folder / "dataset"), *broker, *debug),
        "doctor": ("doctor", "--timeout", "2", *broker),
    }


def command_line(pid: int) -> bytes:
    """Return the command line of a process, which all users of this machine can read."""
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.parametrize("name", ["device", "edge", "collector", "doctor"])
async def test_a_password_is_shown_nowhere(strict_port, tmp_path, name):
    """Neither output nor command line contains the password, even when the broker refuses it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-X",
        "dev",  # makes asyncio and the interpreter log more
        "-m",
        "cli.main",
        *commands(strict_port, tmp_path)[name],
        cwd=ROOT,
        env=os.environ | {PASSWORD_VARIABLE: SECRET, "PYTHONUNBUFFERED": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    output = b""
    async with asyncio.timeout(DEADLINE_S):
        while b"Not authorized" not in output:
            line = await process.stdout.readline()
            assert line, output.decode()
            output += line
        if name != "doctor":  # doctor ends without a signal
            assert SECRET.encode() not in command_line(process.pid)
            process.terminate()
        output += await process.stdout.read()
        await process.wait()
    assert SECRET.encode() not in output


def test_no_configuration_can_hold_a_secret():
    """No configuration has a field for the password."""
    for kind in (DeviceConfig, EdgeConfig, CollectorConfig):
        with pytest.raises(msgspec.ValidationError, match="password"):
            msgspec.convert({"broker": {"password": SECRET}}, kind)


def fail(password: str) -> None:
    raise ValueError(len(password))


def test_a_traceback_shows_no_values(capsys):
    """A traceback on the console shows lines of code but no values of local variables."""
    log.configure("debug", json=False)
    try:
        fail(SECRET)
    except ValueError:
        structlog.get_logger().exception("broken")
    output = capsys.readouterr().err
    assert "ValueError" in output
    assert SECRET not in output


async def test_the_repr_of_a_connection_hides_the_password(strict_port):
    """The repr of the objects that contain the password does not show it."""
    bus = Bus(Broker(port=strict_port, username="somebody"), "printed", password=SECRET)
    connection = asyncio.create_task(bus.run())
    await eventually(lambda: "Not authorized" in bus.last_error)
    shown = [
        repr(value)
        for value in (bus, bus._broker, bus._connection, connection, *vars(bus).values())
        if value != SECRET
    ]
    connection.cancel()
    await asyncio.wait({connection})
    assert not [text for text in shown if SECRET in text]


async def test_a_refused_password_is_said_as_such(strict_port, tmp_path):
    """Trying again does not help: exit code 1, with the variable; not 75."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "gleaner", "send", "README.md", "--timeout", "3",
        "--broker", f"127.0.0.1:{strict_port}",
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(DEADLINE_S):
        output, _ = await process.communicate()
    assert process.returncode == 1
    assert b"refuses this client" in output
    assert PASSWORD_VARIABLE.encode() in output
