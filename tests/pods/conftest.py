"""The laboratory as a session fixture, cameras under load, and the table of figures at the end."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from tests.pods import images, report, requirements
from tests.pods.cameras import Cameras
from tests.pods.lab import NODES, PodLab
from tests.pods.programs import locate
from tests.pods.traces import traces

Note = Callable[[str, str], None]
Load = Callable[[str], AbstractAsyncContextManager[Cameras]]
FIRST, LATER = NODES
INTERVAL_S = 0.25
_noted: list[tuple[str, str]] = []


@pytest.fixture(scope="session")
def note() -> Note:
    """Add a line to the table at the end: the quantity, and its value with unit."""
    return lambda what, value: _noted.append((what, value))


@pytest.fixture(scope="session")
def lab(note: Note) -> Iterator[PodLab]:
    """A cloud and one edge node with ready pods and version 1 of the model; a second node may join later.

    At its end nothing is left of it on this machine.
    """
    if reason := requirements.missing():
        pytest.skip(reason)
    if missing := [*locate().missing(), *images.missing()]:
        pytest.skip(f"{', '.join(missing)} not built: run `make kubeedge-pods`, which needs Go")
    began = time.monotonic()
    made = PodLab(locate(), told=lambda step: note(step, f"{time.monotonic() - began:.0f} s"))
    made.stop()
    before = traces()
    try:
        asyncio.run(_start(made))
        yield made
    finally:
        made.stop()
    left = {kind: found - before[kind] for kind, found in traces().items()}
    assert not any(left.values()), left


async def _start(made: PodLab) -> None:
    await made.start()
    await made.join(FIRST)
    await made.deploy()
    await report.first_release(made, (FIRST,))
    await made.ready((FIRST,))


@pytest.fixture
def load(lab: PodLab, tmp_path: Path, note: Note) -> Load:
    """Cameras at all joined nodes for the length of a block, in which nothing is lost or doubled."""

    @asynccontextmanager
    async def under_load(what: str) -> AsyncIterator[Cameras]:
        await lab.ready(tuple(lab.joined))
        cameras = Cameras(lab, tmp_path / "cameras", INTERVAL_S, tuple(lab.joined))
        try:
            await cameras.start()
            await cameras.answers(4)
            yield cameras
            ledger = await cameras.settle()
        finally:
            await cameras.kill()
        note(
            f"{what}: photos, lost, doubled",
            f"{ledger.photos}, {ledger.photos_lost}, {ledger.photos_doubled}",
        )
        note(
            f"{what}: samples, lost, doubled",
            f"{ledger.samples}, {ledger.samples_lost}, {ledger.samples_doubled}",
        )
        note(
            f"{what}: photo to result, median and worst",
            f"{cameras.median_ms():.0f}, {cameras.worst_ms():.0f} ms",
        )
        assert ledger.verdict == []

    return under_load


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of figures."""
    if _noted:
        terminalreporter.section("Pods")
        for what, value in _noted:
            terminalreporter.write_line(f"{what:<72} {value}")
