"""Remove a node or a component that is gone: clear what the broker retains of it.

A node that comes back reports again, and needs a new release and policy.
"""

import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from typing import NamedTuple

from bus import log
from cli import connect, exit_codes, options, run_service
from cli.fleet import Fleet
from cli.output import print_line
from schemas.errors import PermanentError
from schemas.messages import Status
from schemas.topics import FORGET, POLICY, RELEASE, ROOT, STATUS

_ONLINE_S = 60.0


class Target(NamedTuple):
    """A node, or one component of it."""

    node: str
    name: str | None


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "target",
        type=_target,
        metavar="NODE[.NAME]",
        help="a node with all that runs on it, or a component",
    )
    parser.add_argument(
        "--force", action="store_true", help="also if it reported within the last minute, or never"
    )
    parser.add_argument(
        "--wait",
        metavar="S",
        type=options.positive(float),
        default=5.0,
        help="longest time to read the retained statuses, in seconds (default: 5)",
    )
    options.add_broker(parser)


def run(arguments: Namespace) -> int:
    """Clear the retained messages; fail if nothing is known of the target, or it is still online."""
    log.configure("error")
    run_service.run(_retire(arguments))
    return exit_codes.OK


async def _retire(arguments: Namespace) -> None:
    from cloud.rollout.retained import clear_retained  # noqa: PLC0415  # each command loads what it needs

    target: Target = arguments.target
    bus = connect.bus(arguments, "retire")
    fleet, echoes = Fleet(bus), bus.subscribe_raw(f"{ROOT}/#")
    async with connect.connected(arguments, bus):
        known = await fleet.read(arguments.wait)
        topics = _topics(target, known, force=arguments.force)
        await clear_retained(bus, echoes, topics)
        for topic in topics:
            print_line(f"cleared {topic}")


def _topics(target: Target, known: list[Status], *, force: bool) -> list[str]:
    """Return the topics to clear.

    Raises:
        PermanentError: There is no such target, or it still reports.
    """
    found = [status for status in known if status.node == target.node and target.name in (None, status.name)]
    subject = target.node if target.name is None else f"{target.node}.{target.name}"
    if not found and not (force and target.name is None):
        nodes = ", ".join(sorted({status.node for status in known}))
        hint = f"known are {nodes or 'none'}; --force clears policy and release of a node anyway"
        raise PermanentError(f"nothing has reported as {subject}", hint=hint)
    since_ms = (time.time() - _ONLINE_S) * 1000
    online = [one.name for one in found if one.state != "offline" and one.at_ms > since_ms]
    if online and not force:
        raise PermanentError(
            f"{subject} is in service ({', '.join(online)})", hint="stop it first, or use --force"
        )
    topics = [STATUS.name(node=one.node, name=one.name) for one in found]
    if target.name is None:
        topics += [topic.name(node=target.node) for topic in (POLICY, RELEASE, FORGET)]
    return topics


def _target(text: str) -> Target:
    node, dot, name = text.partition(".")
    if dot and not name:
        raise ArgumentTypeError(f"expected NODE or NODE.NAME, got {text!r}")
    return Target(options.name(node), options.name(name) if dot else None)
