"""Show the harvest rules of edge nodes, set them, or tune them by training results and audits.

The output is a TOML file for --set. A node without a policy uses its own configuration.
"""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import structs

from bus import config, log
from cli import connect, options, run_service
from cli.cloud.known_nodes import add_any_node, check_nodes
from cli.fleet import Fleet
from cli.output import print_line
from schemas.messages import HarvestRules, Policy
from schemas.topics import POLICY

if TYPE_CHECKING:
    from cloud.rollout.policy_update import Change


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--nodes",
        type=options.nodes,
        action="extend",
        metavar="NAME,NAME",
        help="edge nodes; can be repeated (edge-1)",
    )
    add_any_node(parser)
    change = parser.add_mutually_exclusive_group()
    change.add_argument(
        "--set",
        metavar="TOML",
        type=Path,
        help="publish these rules; missing ones have their defaults",
    )
    change.add_argument("--auto", choices=("on", "off"), help="switch the lane auto")
    change.add_argument(
        "--clear", action="store_true", help="go back to the rules in each node's own configuration"
    )
    change.add_argument(
        "--tune",
        action="store_true",
        help="switch the lane auto by the newest model card, move the thresholds of classes by the audits of"
        " the version in service, and keep the other rules",
    )
    parser.add_argument(
        "--target",
        type=options.share,
        default=0.97,
        help="for --tune: wanted share of correct labels in the lane auto (0.97)",
    )
    options.add_dataset(parser)
    options.add_models(parser)
    parser.add_argument(
        "--wait",
        metavar="S",
        type=options.positive(float),
        default=2.0,
        help="seconds to wait for the nodes' policies (2)",
    )
    options.add_broker(parser)


def run(arguments: Namespace) -> int:
    """Show the policies, or publish those that change with the reasons."""
    log.configure("error")
    run_service.run(_update(arguments, _change(arguments)))
    return 0


def _change(arguments: Namespace) -> "Change | None":
    """Return the function from a policy to its new rules with reasons; None to show the policies."""
    if arguments.set is not None:
        # A policy is complete: rules that the file leaves out go to the node with their defaults.
        rules = config.load(arguments.set, HarvestRules)
        return lambda _: (rules, [f"set from {arguments.set}"])
    if arguments.auto is not None:
        on = arguments.auto == "on"
        return lambda policy: (structs.replace(policy.harvest, auto=on), [f"lane auto {arguments.auto}"])
    return _tuning(arguments) if arguments.tune else None


def _tuning(arguments: Namespace) -> "Change":
    """Return the change by training results and audits.

    Raises:
        PermanentError: There is no dataset, or no version yet.
    """
    from cloud.registry.registry import Registry  # noqa: PLC0415  # each step loads what it needs, and no more
    from cloud.rollout.policy_update import tuning  # noqa: PLC0415  # as above

    return tuning(arguments.dataset, Registry(arguments.out), arguments.target)


async def _update(arguments: Namespace, change: "Change | None") -> None:
    from cloud.rollout.policy_update import retained_policies, update_policies  # noqa: PLC0415  # as above
    from cloud.rollout.retained import clear_retained  # noqa: PLC0415  # as above

    bus = connect.bus(arguments, "policy")
    policies, echoes, fleet = bus.subscribe(POLICY), bus.subscribe_raw(POLICY.filter), Fleet(bus)
    nodes = tuple(dict.fromkeys(arguments.nodes or ["edge-1"]))
    async with connect.connected(arguments, bus):
        await check_nodes(fleet, nodes, any_node=arguments.any_node)
        if arguments.clear:
            await clear_retained(bus, echoes, [POLICY.name(node=node) for node in nodes])
            print_line(f"policy cleared: {', '.join(nodes)} use their own rules")
            return
        # With --set the current policies do not matter, and a broken one must not be in the way.
        known = {} if arguments.set else await retained_policies(policies, nodes, arguments.wait)
        if change is None:
            for node in nodes:
                policy = known.get(node, Policy(node=node))
                for line in _toml_lines(policy, known=node in known):
                    print_line(line)
            return
        async for node, reasons in update_policies(bus, policies, nodes, known, change):
            for reason in reasons or ["nothing to change"]:
                print_line(f"{node}: {reason}")


def _toml_lines(policy: Policy, *, known: bool) -> Iterator[str]:
    """Yield the lines of a TOML file."""
    if policy.issued_at_ms is not None:
        issued = datetime.fromtimestamp(policy.issued_at_ms / 1000, UTC).isoformat(timespec="seconds")
        yield f"# {policy.node}: issued at {issued}"
    else:
        yield f"# {policy.node}: " + ("time of issue unknown" if known else "no policy; the defaults")
    yield from _dotted(msgspec.to_builtins(policy.harvest))


def _dotted(fields: dict[str, object], prefix: str = "") -> Iterator[str]:
    for name, value in fields.items():
        # Class names are free text: those that are no bare TOML key are quoted.
        key = prefix + (name if name.isidentifier() and name.isascii() else json.dumps(name))
        if isinstance(value, dict):
            yield from _dotted(value, f"{key}.")
        elif value is not None:  # TOML has no null: such a field is left out
            yield f"{key} = {json.dumps(value)}"
