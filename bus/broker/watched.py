"""Run mosquitto with a provisioned configuration, and restart it when a file that it has read changes.

Only a start lets mosquitto 2.0 read all of them, and ends the connections that were accepted before; sessions
and queued messages are saved. A SIGHUP ends no connection, and 2.0.11 may crash some time after one.
"""

import hashlib
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import structlog

from bus.backoff import backoff
from bus.broker.locate import BrokerError, Mosquitto
from bus.parent_death import ending_with_parent

_POLL_S = 2.0
_STOP_S = 30.0
_LASTED_S = 60.0
"""Uptime in seconds after which the next restart is immediate again."""
_RETRY_CAP_S = 10.0
_FILES = ("acl_file", "cafile", "certfile", "crlfile", "keyfile", "password_file")
_FILES_OF_BRIDGES = ("bridge_cafile", "bridge_certfile", "bridge_keyfile")

log = structlog.get_logger()

Fingerprint = dict[Path, str]


def files_of(config: Path) -> list[Path]:
    """Return a mosquitto.conf and the files that it names.

    Raises:
        BrokerError: It cannot be read.
    """
    try:
        lines = config.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BrokerError(f"cannot read {config}: {error}") from None
    settings = (line.strip().partition(" ") for line in lines)
    return [
        config,
        *(Path(value.strip()) for name, _, value in settings if name in _FILES + _FILES_OF_BRIDGES),
    ]


def run_watched(config: Path, program: Mosquitto, stop: threading.Event, poll_s: float = _POLL_S) -> None:
    """Run mosquitto until `stop` is set. Blocks the calling thread.

    A change takes effect once the files were the same for two polls, so that files that are copied one after
    the other are read together. A mosquitto that exits is started again, after at most 10 s.

    Args:
        config: Its mosquitto.conf.
        program: The mosquitto to run.
        stop: Ends it.
        poll_s: Seconds between two looks at the files.

    Raises:
        BrokerError: The configuration cannot be read at the start.
    """
    current = _fingerprint(files_of(config))
    delays = backoff(1.0, _RETRY_CAP_S)
    while not stop.is_set():
        started_at = time.monotonic()
        process = subprocess.Popen(  # noqa: S603  # the mosquitto that find_mosquitto() returned
            [str(program.binary), "-c", str(config)],
            env=program.environment(),
            stdin=subprocess.DEVNULL,
            preexec_fn=ending_with_parent(),  # noqa: PLW1509  # it calls the kernel alone
        )
        log.info("broker.started", config=str(config), pid=process.pid)
        try:
            current = _watch(process, config, current, stop, poll_s)
        finally:
            _end(process)
        if process.returncode and not stop.is_set():
            lasted = time.monotonic() - started_at > _LASTED_S
            delays = backoff(1.0, _RETRY_CAP_S) if lasted else delays
            log.error("broker.ended", code=process.returncode)
            stop.wait(next(delays))
            with suppress(BrokerError):  # the configuration is being replaced
                current = _fingerprint(files_of(config))


def _watch(
    process: "subprocess.Popen[bytes]",
    config: Path,
    current: Fingerprint,
    stop: threading.Event,
    poll_s: float,
) -> Fingerprint:
    """Wait until mosquitto has to end or has ended; return the files as they are then."""
    seen = current
    while not stop.wait(poll_s) and process.poll() is None:
        try:
            found = _fingerprint(files_of(config))
        except BrokerError:  # it is being replaced
            continue
        if found == seen != current:
            log.info(
                "broker.restarting", changed=[str(path) for path in found if found[path] != current.get(path)]
            )
            return found
        seen = found
    return current


def _fingerprint(paths: list[Path]) -> Fingerprint:
    return {path: _digest(path) for path in paths}


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        return f"unreadable: {error.strerror}"


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_STOP_S)  # saving a large persistence file takes a while
    except subprocess.TimeoutExpired:
        process.kill()
    process.wait()
