"""A supervised broker is restarted after any failure, also of its files."""

import asyncio
import sys
import threading
import time
from pathlib import Path

from bus.broker.locate import Mosquitto
from bus.broker.watched import run_watched
from tests.conftest import DEADLINE_S, ROOT, eventually

_CRASHING = """#!/bin/sh
echo started >> {log}
rm -f {config}
exit 3
"""


def test_a_broker_outlives_a_configuration_that_is_being_replaced(tmp_path):
    """It ended while its file was away for a moment: the next start finds the new one."""
    config, log, program = (tmp_path / name for name in ("mosquitto.conf", "log", "program"))
    config.write_text("listener 1883\n")
    program.write_text(_CRASHING.format(log=log, config=config))
    program.chmod(0o700)
    stop, failures = threading.Event(), list[BaseException]()

    def run() -> None:
        try:
            run_watched(config, Mosquitto(program), stop, poll_s=0.01)
        except BaseException as error:  # noqa: BLE001  # the test fails with it
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    deadline = time.monotonic() + DEADLINE_S
    while not failures and (not log.exists() or log.read_text().count("started") < 2):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    stop.set()
    thread.join(DEADLINE_S)
    assert failures == []


_WATCHING = """
import pathlib, sys, threading
from bus.broker.locate import Mosquitto
from bus.broker.watched import run_watched
run_watched(pathlib.Path(sys.argv[1]), Mosquitto(pathlib.Path(sys.argv[2])), threading.Event())
"""


async def test_a_broker_ends_with_its_watcher_that_is_killed(tmp_path):
    """It would hold the port, with files that nobody reads again."""
    config, program, pid = (tmp_path / name for name in ("mosquitto.conf", "program", "pid"))
    config.write_text("listener 1883\n")
    program.write_text(f"#!/bin/sh\necho $$ > {pid}.new && mv {pid}.new {pid}\nexec sleep 600\n")
    program.chmod(0o700)
    words = (sys.executable, "-c", _WATCHING, config, program)
    watcher = await asyncio.create_subprocess_exec(*words, cwd=ROOT)
    await eventually(pid.exists)
    started = Path(f"/proc/{pid.read_text().strip()}")
    watcher.kill()
    await watcher.wait()
    await eventually(lambda: not started.exists())
