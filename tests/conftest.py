"""Fixtures shared by the tests of all sides: a real broker, real photos, waiting for conditions."""

import asyncio
import gc
import io
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings
from PIL import Image, ImageDraw

from bus.broker.locate import Mosquitto, find_mosquitto
from bus.broker.process import BrokerProcess
from bus.config import Broker
from bus.mqtt.client import Bus

ROOT = Path(__file__).resolve().parent.parent
DEADLINE_S = 180.0
"""How long a test waits for an event before it fails: generous, for a machine that is busy otherwise."""

_MODULE_SECONDS = "gleaner/module-seconds"
_took_s: defaultdict[str, float] = defaultdict(float)

# Hypothesis would fail an example that takes longer than 200 ms, which any may on a busy machine.
settings.register_profile("gleaner", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gleaner")


def pytest_configure() -> None:
    """Set up this process, and with it the processes that tests start."""
    # Where an environment forbids bytecode, as that of many containers does, each of some thousand processes
    # would compile the whole product again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    # Before NumPy is imported. The matrices are small and several test processes share the cores: the threads
    # of OpenBLAS would double the time by waiting for one another.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if "PYTEST_XDIST_WORKER" in os.environ:
        # Collecting the suite imports TensorFlow: without what Keras would find, in two thirds of the time.
        from cloud.modeling.load_tensorflow import load_tensorflow  # noqa: PLC0415  # not for a single test

        load_tensorflow()
    # Background jobs of a non-interactive shell ignore SIGINT, and so would the processes of the tests.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the modules that took longest in the last whole run, so that none runs alone at the end.

    Those with slow tests that no run has measured are before them. All test processes read the same file.
    """
    cache = getattr(config, "cache", None)
    took_s = {} if cache is None else cache.get(_MODULE_SECONDS, {})
    slow = {_module(item.nodeid) for item in items if item.get_closest_marker("slow")}

    def expected_s(item: pytest.Item) -> float:
        module = _module(item.nodeid)
        return float(took_s.get(module, math.inf if module in slow else 0.0))

    items.sort(key=expected_s, reverse=True)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up how long each module takes."""
    _took_s[_module(report.nodeid)] += report.duration


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Keep how long the modules took in a whole run; parallel processes leave that to their parent."""
    config = session.config
    cache = getattr(config, "cache", None)
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS and not config.option.keyword
    ended = exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED} and not session.shouldfail
    if cache is not None and whole and ended and "PYTEST_XDIST_WORKER" not in os.environ:
        measured = {module: round(seconds, 1) for module, seconds in _took_s.items()}
        cache.set(_MODULE_SECONDS, cache.get(_MODULE_SECONDS, {}) | measured)


def _module(test: str) -> str:
    return test.partition("::")[0]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect the tests without looking for garbage among their modules, which stay until the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Restore the configuration of structlog, which a command run in this process changes."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture(scope="session")
def mosquitto() -> Mosquitto:
    """The mosquitto program: installed, or downloaded once."""
    return find_mosquitto()


@pytest.fixture
def broker(tmp_path: Path, mosquitto: Mosquitto) -> Iterator[BrokerProcess]:
    """A real broker on its own port; a test may kill and restart it."""
    process = BrokerProcess(tmp_path / "broker", program=mosquitto)
    process.start()
    yield process
    process.stop()


@pytest.fixture
def address(broker: BrokerProcess) -> Broker:
    """The address of that broker."""
    return Broker(port=broker.port)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB; mounting it requires root."""
    folder = tmp_path / "small-disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk requires root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path, *, leave_bytes: int = 0) -> Path:
    """Fill the disk of a folder with one file, except `leave_bytes`, and return the file."""
    filler = folder / "filler"
    with filler.open("wb") as file:
        file.write(bytes(max(0, shutil.disk_usage(folder).free - leave_bytes)))
    return filler


@asynccontextmanager
async def running(*buses: Bus) -> AsyncIterator[None]:
    """Run connections for the duration of a block, entered when all are connected."""
    async with asyncio.TaskGroup() as tasks:
        connections = [tasks.create_task(bus.run()) for bus in buses]
        async with asyncio.timeout(DEADLINE_S):
            for bus in buses:
                await bus.connected()
        try:
            yield
        finally:
            for connection in connections:
                connection.cancel()


async def eventually(condition: Callable[[], bool], *, within_s: float = DEADLINE_S) -> None:
    """Wait until a condition holds, checked every 5 ms; fail after the deadline."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"did not happen within {within_s} s: {condition}"
        await asyncio.sleep(0.005)


def jpeg(seed: int = 0, size: tuple[int, int] = (160, 120), quality: int = 85) -> bytes:
    """Return a small JPEG that differs by seed, also in its difference hash."""
    picture = Image.new("RGB", size, (seed * 37 % 256, seed * 91 % 256, seed * 53 % 256))
    pen = ImageDraw.Draw(picture)
    for bar in range(8):
        shade = (seed * 2654435761 + bar * 40503) >> 3 & 255
        left = bar * size[0] // 8
        pen.rectangle(
            (left, shade % size[1], left + size[0] // 8, size[1]), fill=(shade, 255 - shade, seed & 255)
        )
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return out.getvalue()


@pytest.fixture(scope="session")
def photo_collection() -> Path:
    """Folder of real photos with train/, stream/ and gold/, each with a folder per class; else skip."""
    default = Path(__file__).resolve().parents[2] / "shared" / "photos"
    folder = Path(os.environ.get("GLEANER_PHOTOS", default))
    if not (folder / "gold").is_dir():
        pytest.skip(f"no photo collection in {folder}; set GLEANER_PHOTOS to one")
    return folder
