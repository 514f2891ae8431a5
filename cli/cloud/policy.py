"""Show the harvest rules of edge nodes, set them, or tune them by training results and audits.

The output is a TOML file for --set. A node without a policy uses its own configuration.
"""

import asyncio
import json
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import structs

from bus import config, log
from bus.mqtt.presence import now_ms
from bus.mqtt.publish_confirmed import publish_confirmed
from bus.mqtt.subscription import Subscription
from cli import connect, options, run_service
from schemas.errors import PermanentError
from schemas.messages import Caps, HarvestRules, Policy
from schemas.topics import POLICY

_Change = Callable[[Policy], tuple[HarvestRules, list[str]]]


class _Caps(Caps, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Caps in a file: a misspelt name is an error."""


class _Rules(HarvestRules, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rules in a file: a misspelt name is an error."""

    caps: _Caps = _Caps()


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--nodes",
        type=options.names,
        action="extend",
        metavar="NAME,NAME",
        help="edge nodes; can be repeated (edge-1)",
    )
    change = parser.add_mutually_exclusive_group()
    change.add_argument(
        "--set",
        metavar="TOML",
        type=Path,
        help="publish these rules; missing ones have their defaults",
    )
    change.add_argument("--auto", choices=("on", "off"), help="switch the lane auto")
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
    run_service.run(_play(arguments, _change(arguments)))
    return 0


def _change(arguments: Namespace) -> _Change | None:
    """Return the function from a policy to its new rules with reasons; None to show the policies."""
    if arguments.set is not None:
        rules = msgspec.convert(config.load(arguments.set, _Rules), HarvestRules, from_attributes=True)
        return lambda _: (rules, [f"as {arguments.set} says"])
    if arguments.auto is not None:
        on = arguments.auto == "on"
        return lambda policy: (structs.replace(policy.harvest, auto=on), [f"lane auto {arguments.auto}"])
    return _tuning(arguments) if arguments.tune else None


def _tuning(arguments: Namespace) -> _Change:
    """Read what training and audits say.

    Raises:
        PermanentError: There is no dataset, or no version yet.
    """
    from cloud.dataset.store import Store  # noqa: PLC0415  # as above
    from cloud.evaluation.live_accuracy import audited_photos  # noqa: PLC0415  # each step loads what it needs, and no more
    from cloud.registry.registry import cards_in, served  # noqa: PLC0415  # as above
    from cloud.rollout.harvest_policy import auto_helped_at, tune_rules  # noqa: PLC0415  # as above

    store = Store.open(arguments.dataset, create=False)
    lineage = cards_in(arguments.out)
    if not lineage:
        raise PermanentError(f"folder {arguments.out}", expected="a version with its card", got="none")
    serving = served(lineage)
    audits = audited_photos(store, serving.version) if serving is not None else []

    def change(policy: Policy) -> tuple[HarvestRules, list[str]]:
        helped_before = auto_helped_at(lineage, policy.issued_at_ms)
        helps, target = lineage[-1].auto, arguments.target
        return tune_rules(
            policy.harvest, audits, auto_helps=helps, auto_helped_before=helped_before, target=target
        )

    return change


async def _play(arguments: Namespace, change: _Change | None) -> None:
    bus = connect.bus(arguments, "policy")
    policies = bus.subscribe(POLICY)
    nodes = tuple(dict.fromkeys(arguments.nodes or ["edge-1"]))
    async with connect.connected(arguments, bus):
        known = {} if arguments.set else await _retained(policies, nodes, arguments.wait)
        for node in nodes:
            policy = known.get(node, Policy(node=node))
            if change is None:
                print("\n".join(_shown(policy, known=node in known)), flush=True)
                continue
            rules, reasons = change(policy)
            if reasons:
                changed = Policy(node=node, harvest=rules, issued_at_ms=now_ms())
                await publish_confirmed(bus, policies, POLICY, changed, node=node)
            for reason in reasons or ["nothing to change"]:
                print(f"{node}: {reason}", flush=True)


async def _retained(
    policies: Subscription[Policy], nodes: Collection[str], wait_s: float
) -> dict[str, Policy]:
    """Return by node the policies that the broker keeps; of a node without one it says nothing.

    Raises:
        CodecError: What it keeps for one of the nodes is no policy.
    """
    found: dict[str, Policy] = {}
    try:
        async with asyncio.timeout(wait_s):
            async for delivery in policies:
                delivery.ack()
                if (node := delivery.names["node"]) in nodes:
                    found[node] = delivery.message()
                if len(found) == len(nodes):
                    break
    except TimeoutError:
        pass
    return found


def _shown(policy: Policy, *, known: bool) -> Iterator[str]:
    """Yield the lines of a TOML file."""
    if policy.issued_at_ms is not None:
        issued = datetime.fromtimestamp(policy.issued_at_ms / 1000, UTC).isoformat(timespec="seconds")
        yield f"# {policy.node}: issued at {issued}"
    else:
        yield f"# {policy.node}: " + ("time of issue unknown" if known else "no policy; the defaults")
    yield from _dotted(msgspec.to_builtins(policy.harvest))


def _dotted(fields: dict[str, object], prefix: str = "") -> Iterator[str]:
    for name, value in fields.items():
        key = prefix + (name if name.isidentifier() and name.isascii() else json.dumps(name))
        if isinstance(value, dict):
            yield from _dotted(value, f"{key}.")
        else:
            yield f"{key} = {json.dumps(value)}"
