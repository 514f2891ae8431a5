"""Secrets stay where they are: not in logs, not in the list of processes, not in tracebacks."""

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
from tests.conftest import ROOT, eventually
from tests.sites import broker_of

SECRET = "correct-horse-battery-staple"


@pytest.fixture
def demanding(tmp_path, mosquitto):
    """A broker that lets nobody in: it demands a password and knows none."""
    process = BrokerProcess(tmp_path / "broker", program=mosquitto)
    process.start()
    process.stop()
    conf = tmp_path / "broker/mosquitto.conf"
    text = conf.read_text().replace("allow_anonymous true", "allow_anonymous false")
    ready = tmp_path / "demanding"
    ready.mkdir()
    (ready / "mosquitto.conf").write_text(text)
    with broker_of(ready, process.port, mosquitto):
        yield process.port


def commands(port: int, folder: Path) -> dict[str, tuple[str, ...]]:
    """Return every service and a tool, each at a broker that refuses its password."""
    at = ("--broker", f"127.0.0.1:{port}", "--username", "somebody")
    debug = ("--log-level", "debug")
    return {
        "device": ("device", "--state-dir", str(folder / "device"), *at, *debug),
        "edge": ("edge", "--state-dir", str(folder / "edge"), "--serving", "127.0.0.1:1", *at, *debug),
        "collector": ("cloud", "collect", "--dataset", str(folder / "dataset"), *at, *debug),
        "doctor": ("doctor", "--timeout", "2", *at),
    }


def command_line(pid: int) -> bytes:
    """Return what everybody on this machine can see of a process."""
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.parametrize("name", ["device", "edge", "collector", "doctor"])
async def test_a_password_is_shown_nowhere(demanding, tmp_path, name):
    """A broker refuses the password of the environment: no output and no command line has it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-X",
        "dev",  # asyncio and the interpreter tell all they know
        "-m",
        "cli.main",
        *commands(demanding, tmp_path)[name],
        cwd=ROOT,
        env=os.environ | {PASSWORD_VARIABLE: SECRET, "PYTHONUNBUFFERED": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    said = b""
    async with asyncio.timeout(60):
        while b"Not authorized" not in said:
            line = await process.stdout.readline()
            assert line, said.decode()
            said += line
        if name != "doctor":  # which ends by itself
            assert SECRET.encode() not in command_line(process.pid)
            process.terminate()
        said += await process.stdout.read()
        await process.wait()
    assert SECRET.encode() not in said


def test_no_configuration_can_hold_a_secret():
    """A password is no field of any configuration: what cannot be written down cannot be printed."""
    for kind in (DeviceConfig, EdgeConfig, CollectorConfig):
        with pytest.raises(msgspec.ValidationError, match="password"):
            msgspec.convert({"broker": {"password": SECRET}}, kind)


def fail(password: str) -> None:
    raise ValueError(len(password))


def test_a_traceback_shows_no_values(capsys):
    """On a terminal too, a traceback in the log has lines of code and no local variables."""
    log.configure("debug", json=False)
    try:
        fail(SECRET)
    except ValueError:
        structlog.get_logger().exception("broken")
    said = capsys.readouterr().err
    assert "ValueError" in said
    assert SECRET not in said


async def test_no_part_of_a_connection_prints_its_password(demanding):
    """The objects that hold the password do not show it, whoever prints them."""
    bus = Bus(Broker(port=demanding, username="somebody"), "printed", password=SECRET)
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
