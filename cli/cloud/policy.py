"""Show the policies of edge nodes; set or tune the harvest rules, set votes or groups of devices.

The output is a TOML file for --set. A node without a policy uses its own configuration.
"""

import json
from argparse import ArgumentParser, ArgumentTypeError, Namespace
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
from schemas.groups.membership import EACH, PATTERN
from schemas.messages import Policy
from schemas.policy_rules import MAX_FRAMES, HarvestRules, Vote
from schemas.text import escaped, listed
from schemas.topics import NAME, POLICY

if TYPE_CHECKING:
    from cloud.rollout.policy_update import Change

_LAST_DATE_MS = 253_402_300_799_000  # the end of 9999


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
    change.add_argument(
        "--vote",
        type=_vote,
        action="append",
        metavar="[DEVICE=]M/K",
        help="an answer counts (`confirmed`) only if M of the latest K of its device agree, such as 3/4; 1/1:"
        " no vote; without a device for all of them; can be repeated",
    )
    change.add_argument(
        "--group",
        type=_group,
        action="append",
        metavar="DEVICE=GROUP",
        help="put a device, or those of a pattern such as 'meter-*', into a group, which may get a head of"
        " its own; '*' as the group: each of these devices is one; DEVICE= takes it out; can be repeated",
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


def _vote(text: str) -> tuple[str | None, Vote]:
    """Read a vote such as `3/4` or `door=3/4`; raises ArgumentTypeError."""
    device, equals, numbers = text.rpartition("=")
    agree, slash, frames = numbers.partition("/")
    if not (slash and agree.isdecimal() and frames.isdecimal()):
        raise ArgumentTypeError(f"expected M/K such as 3/4, got {escaped(text)}")
    if not 1 <= int(agree) <= int(frames) <= MAX_FRAMES:
        raise ArgumentTypeError(f"expected M/K with 1 <= M <= K <= {MAX_FRAMES}, got {numbers}")
    return options.device(device) if equals else None, Vote(frames=int(frames), agree=int(agree))


def _group(text: str) -> tuple[str, str | None]:
    """Read a group such as `meter-*=meters`; raises ArgumentTypeError."""
    pattern, equals, group = text.partition("=")
    if not equals or PATTERN.fullmatch(pattern) is None:
        raise ArgumentTypeError(
            f"expected DEVICE=GROUP, with a device or a pattern such as meter-*, got {escaped(text)}"
        )
    if group and group != EACH and NAME.fullmatch(group) is None:
        raise ArgumentTypeError(
            f"expected a group of small letters, digits and inner hyphens, or {EACH}, got {escaped(group)}"
        )
    return pattern, group or None


def run(arguments: Namespace) -> int:
    """Show the policies, or publish those that change with the reasons."""
    log.configure("error")
    run_service.run(_update(arguments, _change(arguments)))
    return 0


def _change(arguments: Namespace) -> "Change | None":
    """Return the function from a policy to the new one with reasons; None to show the policies."""
    from cloud.rollout.policy_update import (  # noqa: PLC0415  # each step loads what it needs, and no more
        changing_rules,
        setting_groups,
        setting_rules,
        setting_votes,
    )

    if arguments.set is not None:
        # The rules are complete: those that the file leaves out go to the node with their defaults.
        return setting_rules(config.load(arguments.set, HarvestRules), f"set from {arguments.set}")
    if arguments.auto is not None:
        on, reasons = arguments.auto == "on", [f"lane auto {arguments.auto}"]
        return changing_rules(lambda rules: (structs.replace(rules, auto=on), reasons))
    if arguments.vote:
        return setting_votes(dict(arguments.vote))
    if arguments.group:
        return setting_groups(dict(arguments.group))
    return _tuning(arguments) if arguments.tune else None


def _tuning(arguments: Namespace) -> "Change":
    """Return the change by training results and audits.

    Raises:
        PermanentError: There is no dataset, or no version yet.
    """
    from cloud.registry.registry import Registry  # noqa: PLC0415  # as above
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
            print_line(f"policy cleared: {listed(nodes)} use their own rules")
            return
        # --set replaces a broken policy, which must not be in the way.
        known = await retained_policies(
            policies, nodes, arguments.wait, broken_is_none=arguments.set is not None
        )
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
        # A clock may be wrong beyond the range of dates.
        issued_s = min(policy.issued_at_ms, _LAST_DATE_MS) / 1000
        issued = datetime.fromtimestamp(issued_s, UTC).isoformat(timespec="seconds")
        yield f"# {policy.node}: issued at {issued}"
    else:
        yield f"# {policy.node}: " + ("time of issue unknown" if known else "no policy; the defaults")
    yield from _dotted(msgspec.to_builtins(policy.harvest))
    yield from _votes(policy)


def _votes(policy: Policy) -> Iterator[str]:
    """Yield votes and groups as comments: `--vote` and `--group` set them, --set leaves them as they are."""
    from cloud.rollout.policy_update import group_text, vote_text  # noqa: PLC0415  # as above

    if policy.vote != Vote() or policy.votes:
        yield f"# all devices: {vote_text(policy.vote)}"
    for device, vote in policy.votes.items():
        yield f"# {device}: {vote_text(vote)}"
    for pattern, group in policy.groups.items():
        yield f"# {pattern}: {group_text(group)}"


def _dotted(fields: dict[str, object], prefix: str = "") -> Iterator[str]:
    for name, value in fields.items():
        # Class names are free text: those that are not a bare TOML key are quoted.
        key = prefix + (name if name.isidentifier() and name.isascii() else json.dumps(name))
        if isinstance(value, dict):
            yield from _dotted(value, f"{key}.")
        elif value is not None:  # TOML has no null: such a field is left out
            yield f"{key} = {json.dumps(value)}"
