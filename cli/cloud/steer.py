"""Steer the running rollout: pause it, resume it, roll it back, or give every node the version now.

The order is kept by the broker until the rollout controller carries it out, also if it is away now.
"""

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from bus import log
from cli import connect, options, run_service
from cli.output import print_line
from schemas.errors import PermanentError
from schemas.topics import STEERING

if TYPE_CHECKING:
    from schemas.messages import Steering


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "action",
        choices=("pause", "resume", "roll-back", "promote"),
        help="pause: no further stage, a bad version is still rolled back; promote: every node, now",
    )
    parser.add_argument("--reason", metavar="TEXT", help="why, for the audit trail")
    parser.add_argument(
        "--by", type=options.person, default="operator", metavar="NAME", help="who gives the order (operator)"
    )
    options.add_models(parser)
    options.add_broker(parser)


def run(arguments: Namespace) -> int:
    """Publish the order; fail if no rollout is running."""
    from cloud.registry.registry import Registry  # noqa: PLC0415  # each command loads what it needs
    from cloud.rollout.steering import new_order  # noqa: PLC0415  # as above

    log.configure("error")
    rollout = Registry(arguments.out).newest_rollout()
    if rollout is None:
        raise PermanentError(
            f"no rollout in {arguments.out}", hint="start one with 'gleaner cloud rollout BUNDLE'"
        )
    order = new_order(rollout, arguments.action, arguments.by, arguments.reason)
    run_service.run(_publish(arguments, order))
    print_line(f"{order.action} of version {order.version}: ordered; the controller answers with an event")
    return 0


async def _publish(arguments: Namespace, order: "Steering") -> None:
    from cloud.rollout.steering import publish_order  # noqa: PLC0415  # as above

    bus = connect.bus(arguments, "steer")
    echoes = bus.subscribe(STEERING)
    async with connect.connected(arguments, bus):
        await publish_order(bus, echoes, order)
