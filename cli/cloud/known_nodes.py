"""Refuse nodes that have never reported: a misspelt one would get a retained message that nobody reads."""

from argparse import ArgumentParser
from collections.abc import Sequence

from cli.fleet import Fleet, nodes_of
from schemas.errors import PermanentError
from schemas.messages import Status
from schemas.suggest import did_you_mean

READ_S = 5.0
"""Longest time to read the retained statuses, in seconds."""


def add_any_node(parser: ArgumentParser) -> None:
    """Declare the option that turns this off."""
    parser.add_argument(
        "--any-node", action="store_true", help="also for nodes that have never reported to this broker"
    )


async def check_nodes(fleet: Fleet, nodes: Sequence[str], *, any_node: bool) -> list[Status]:
    """Read the statuses, and refuse nodes that are not among them; on a broker without nodes all pass.

    Raises:
        PermanentError: A node has never reported, while others have.
    """
    statuses = await fleet.read(READ_S)
    known = nodes_of(statuses)
    unknown = [node for node in nodes if node not in known]
    if known and unknown and not any_node:
        hint = did_you_mean(unknown[0], known) or f"; known are {', '.join(known)}"
        raise PermanentError(
            f"no node {', '.join(unknown)} has reported to this broker{hint}",
            hint="--any-node prepares one that will",
        )
    return statuses
