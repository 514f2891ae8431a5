"""Show the harvest rules of edge nodes, set them, or tune them to what training and audits say.

What is shown is a file for --set. A node without a policy follows its own configuration until it has one.
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
from schemas.messages import Caps, HarvestRules, Policy
from schemas.topics import POLICY

if TYPE_CHECKING:
    from cloud.rollout.policy_update import Change


class _Caps(Caps, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Caps as a person writes them: a misspelt one is an error."""


class _Rules(HarvestRules, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The same of the rules."""

    caps: _Caps = _Caps()


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--nodes",
        type=options.names,
        action="extend",
        metavar="NAME,NAME",
        help="edge nodes; may be given again (edge-1)",
    )
    change = parser.add_mutually_exclusive_group()
    change.add_argument(
        "--set",
        metavar="TOML",
        type=Path,
        help="publish these rules; what the file leaves out has its default",
    )
    change.add_argument("--auto", choices=("on", "off"), help="switch the lane auto")
    change.add_argument(
        "--tune",
        action="store_true",
        help="switch the lane auto as the newest card says, move the thresholds of classes by audits of the"
        " version in service, and keep the rest",
    )
    parser.add_argument(
        "--target",
        type=options.share,
        default=0.97,
        help="for --tune: share of labels in the lane auto that are to be right (0.97)",
    )
    options.add_dataset(parser)
    options.add_models(parser)
    parser.add_argument(
        "--wait", metavar="S", type=options.positive(float), default=2.0, help="for the nodes' policies (2)"
    )
    options.add_broker(parser)


def run(arguments: Namespace) -> int:
    """Show the policies, or publish those that change and say why."""
    log.configure("error")
    run_service.run(_play(arguments, _change(arguments)))
    return 0


def _change(arguments: Namespace) -> "Change | None":
    """Return what makes new rules, with a reason for each change, of a policy; None if it is to be shown."""
    if arguments.set is not None:
        rules = msgspec.convert(config.load(arguments.set, _Rules), HarvestRules, from_attributes=True)
        return lambda _: (rules, [f"as {arguments.set} says"])
    if arguments.auto is not None:
        on = arguments.auto == "on"
        return lambda policy: (structs.replace(policy.harvest, auto=on), [f"lane auto {arguments.auto}"])
    return _tuning(arguments) if arguments.tune else None


def _tuning(arguments: Namespace) -> "Change":
    """Return the change that training and audits call for.

    Raises:
        PermanentError: There is no dataset, or no version yet.
    """
    from cloud.registry.registry import Registry  # noqa: PLC0415  # each step loads what it needs, and no more
    from cloud.rollout.policy_update import tuning  # noqa: PLC0415  # as above

    return tuning(arguments.dataset, Registry(arguments.out), arguments.target)


async def _play(arguments: Namespace, change: "Change | None") -> None:
    from cloud.rollout.policy_update import retained_policies, update_policies  # noqa: PLC0415  # as above

    bus = connect.bus(arguments, "policy")
    policies = bus.subscribe(POLICY)
    nodes = tuple(dict.fromkeys(arguments.nodes or ["edge-1"]))
    async with connect.connected(arguments, bus):
        known = {} if arguments.set else await retained_policies(policies, nodes, arguments.wait)
        if change is None:
            for node in nodes:
                policy = known.get(node, Policy(node=node))
                print("\n".join(_shown(policy, known=node in known)), flush=True)
            return
        async for node, reasons in update_policies(bus, policies, nodes, known, change):
            for reason in reasons or ["nothing to change"]:
                print(f"{node}: {reason}", flush=True)


def _shown(policy: Policy, *, known: bool) -> Iterator[str]:
    """Yield the lines of a TOML file."""
    if policy.issued_at_ms is not None:
        issued = datetime.fromtimestamp(policy.issued_at_ms / 1000, UTC).isoformat(timespec="seconds")
        yield f"# {policy.node}: issued at {issued}"
    else:
        yield f"# {policy.node}: " + ("issued nobody knows when" if known else "no policy; the defaults")
    yield from _dotted(msgspec.to_builtins(policy.harvest))


def _dotted(fields: dict[str, object], prefix: str = "") -> Iterator[str]:
    for name, value in fields.items():
        key = prefix + (name if name.isidentifier() and name.isascii() else json.dumps(name))
        if isinstance(value, dict):
            yield from _dotted(value, f"{key}.")
        else:
            yield f"{key} = {json.dumps(value)}"
