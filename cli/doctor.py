"""Check this machine, the broker, edge nodes and their models, and suggest a fix for each failure."""

import asyncio
import platform
from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from bus import log
from bus.diagnosis.finding import Finding, failed, passed
from bus.diagnosis.status_checks import component_finding, dataset_finding
from bus.mqtt.client import Bus
from cli import exit_codes, options, run_service
from cli.doctor_checks import Checks
from cli.doctor_machine import machine_findings
from cli.fleet import nodes_of
from cli.output import OutputError, print_line
from schemas.distribution import DISTRIBUTION
from schemas.messages import Status
from schemas.topics import HANDLERS

_PACKAGES = (DISTRIBUTION, "aiomqtt", "paho-mqtt", "msgpack", "msgspec", "grpcio", "tensorflow", "pylance")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    nodes = parser.add_mutually_exclusive_group()
    nodes.add_argument(
        "--node", type=options.node, help="edge node to check (default: that of the configuration, or edge-1)"
    )
    nodes.add_argument("--all", action="store_true", help="check all nodes and components that report")
    parser.add_argument(
        "--timeout",
        metavar="S",
        type=options.positive(float),
        default=5.0,
        help="seconds for each check (default: 5)",
    )
    options.add_broker(parser)


def run(arguments: Namespace) -> int:
    """Print the outcome of each check; return 0 if all passed."""
    log.configure("error")
    return exit_codes.OK if run_service.run(_check_all(arguments)) else exit_codes.FAILED


async def _check_all(arguments: Namespace) -> bool:
    all_passed, unwritable = True, None
    async for finding in _findings(arguments):
        all_passed = all_passed and finding.passed
        try:
            _print(finding)
        except (OutputError, BrokenPipeError) as error:
            # Raised at the end only: a generator that is left in the middle closes its connection too late.
            unwritable = unwritable or error
    if unwritable is not None:
        raise unwritable
    return all_passed


def _print(finding: Finding) -> None:
    print_line(f"{'ok  ' if finding.passed else 'FAIL'} {finding.subject}: {finding.found}")
    if not finding.passed:
        print_line(f"     → {finding.advice}")


async def _findings(arguments: Namespace) -> AsyncIterator[Finding]:
    yield passed("versions", _versions())
    own = options.own_configuration(arguments)
    for finding in machine_findings(own, datetime.now(UTC)):
        yield finding
    node = arguments.node or options.own_node(arguments)
    checks = Checks(arguments, node)
    async with running(checks.bus):
        reachable = await checks.broker()
        yield reachable
        if not reachable.passed:  # every other check would fail for the same reason
            return
        yield await checks.probe()
        yield checks.dropped()
        if checks.fleet is None:
            async for finding in checks.node():
                yield finding
            return
        statuses = await checks.fleet.read(arguments.timeout)
    async for finding in _fleet_findings(arguments, statuses):
        yield finding


async def _fleet_findings(arguments: Namespace, statuses: list[Status]) -> AsyncIterator[Finding]:
    """Check each node that reports, and the status of every other component."""
    if not statuses:
        yield failed("fleet", "no component has reported to this broker", "start one, or check the ACL")
    for node in nodes_of(statuses):
        checks = Checks(arguments, node)
        async with running(checks.bus):
            if await checks.within(checks.bus.connected()) is not None:
                async for finding in checks.node():
                    yield finding
    for status in sorted(statuses, key=lambda one: (one.node, one.name)):
        if status.name not in HANDLERS:
            yield component_finding(status)
    if (dataset := dataset_finding(statuses)) is not None:
        yield dataset


@asynccontextmanager
async def running(bus: Bus) -> AsyncIterator[None]:
    """Run a connection for the duration of a block; unlike `connect.connected`, without waiting for it."""
    async with asyncio.TaskGroup() as tasks:
        connection = tasks.create_task(bus.run())
        yield
        connection.cancel()


def _versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)
