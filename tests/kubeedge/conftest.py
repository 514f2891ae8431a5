"""The laboratory as a session fixture, and the table of measurements at the end."""

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest

from tests.kubeedge.lab import Lab
from tests.kubeedge.programs import locate
from tests.kubeedge.service import memory_bytes
from tests.kubeedge.settings import BrokerConnection

Note = Callable[[str, str], None]
_noted: list[tuple[str, str]] = []


@pytest.fixture(scope="session")
def note() -> Note:
    """Add a line to the table at the end: the quantity, and its value with unit."""
    return lambda what, value: _noted.append((what, value))


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory, note: Note) -> Iterator[Lab]:
    """A running KubeEdge with two edge nodes; a test may stop, kill and restart its processes."""
    programs = locate()
    if missing := programs.missing():
        pytest.skip(f"{', '.join(missing)} not built: run `make kubeedge-lab`, which needs Go")
    made = Lab(tmp_path_factory.mktemp("lab"), programs)
    try:
        began = time.monotonic()
        asyncio.run(made.start())
        note("laboratory up", f"{time.monotonic() - began:.0f} s")
        yield made
        for service in made.services:
            if service.pid:
                note(f"memory of {service.name}", f"{memory_bytes(service.pid) / 1e6:.0f} MB")
    finally:
        made.stop()


@pytest.fixture(scope="session", params=["websocket", "quic"])
def link(request: pytest.FixtureRequest) -> BrokerConnection:
    """Each transport; session-scoped, so that the tests of one transport run together."""
    return BrokerConnection(transport=request.param)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of measurements."""
    if _noted:
        terminalreporter.section("KubeEdge")
        for what, value in _noted:
            terminalreporter.write_line(f"{what:<60} {value}")
