"""Off a terminal each line of a service's log is JSON, from any logger; on one it is escaped."""

import io
import json
import subprocess
import sys

import structlog

from bus import log
from tests.conftest import ROOT
from tests.schemas.test_text import HOSTILE

PROGRAM = """
import asyncio, logging, os, warnings
from bus import log
from cli import run_service
import structlog

async def service():
    structlog.get_logger().info("own.event", number=1)
    warnings.warn("from a library")
    logging.getLogger("PIL.Image").warning("a %s warning", "formatted")
    loop = asyncio.get_running_loop()
    loop.call_soon(lambda: 1 / 0)
    os.write(2, b"Input file read error\\n")
    os.write(2, b"\\xff not UTF-8\\n" * 3)
    await asyncio.sleep(0.05)

log.configure("info", json=True)
with log.stderr_captured():
    run_service.run(service())
structlog.get_logger().info("own.last")
"""


def test_every_line_of_a_log_is_json():
    """Warnings, records of libraries, asyncio's tracebacks and C libraries' lines become events."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=180, check=True
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    logged = {line["event"]: line for line in lines}
    assert {"own.event", "own.last", "library.logged", "stderr.written"} == set(logged)
    messages = " ".join(line.get("message", "") + line.get("text", "") for line in lines)
    for words in ("from a library", "a formatted warning", "Input file read error", "not UTF-8", "<lambda>"):
        assert words in messages, words
    assert any("ZeroDivisionError" in line.get("exception", "") for line in lines)


HIDING = """
import os, sys
from bus.log import native_stderr_hidden

print("before", file=sys.stderr)
try:
    with native_stderr_hidden():
        os.write(2, b"a note of a library\\n")
        print("progress", file=sys.stderr)
        raise ValueError
except ValueError:
    print("after", file=sys.stderr)
os.write(2, b"native again\\n")
"""


def test_only_what_c_libraries_write_is_hidden():
    """In the block Python's lines appear, and behind it, also after an exception, everything does."""
    words = [sys.executable, "-c", HIDING]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=180, check=True)
    assert done.stderr.splitlines() == ["before", "progress", "after", "native again"]


def test_a_terminal_gets_no_control_character_of_a_value(monkeypatch):
    """Texts, keys, other values and the message of an exception are escaped; line breaks are ours alone."""
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    log.configure(json=False)
    logger = structlog.get_logger()
    logger.info("photo.classified", label=HOSTILE, facts={HOSTILE: [HOSTILE]}, error=ValueError(HOSTILE))
    logger.info(HOSTILE, **{f"key {HOSTILE}": 1})
    logger.error("step.failed", exc_info=ValueError(HOSTILE))
    lines = written.getvalue().splitlines()
    assert written.getvalue().count("\n") == len(lines)
    colours = "".join(lines).replace("\x1b[", "")  # the renderer's own, where colours are installed
    assert colours.isprintable()
    assert "\\x1b]0;owned\\x07" in colours
    assert "31m\\x00" in colours
