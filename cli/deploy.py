"""KubeEdge's Rules for a list of nodes: write them as YAML, or check and repair those of a cluster."""

import asyncio
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from bus import config, log
from bus.mqtt.client import Bus, transient_client_id
from bus.mqtt.session import connected
from cli import options, run_service
from cli.examples import examples_of
from cli.output import print_line
from schemas.errors import PermanentError

if TYPE_CHECKING:
    from bus.gateway.routes import Route
    from bus.gateway.rules.kube_api import Cluster
    from bus.gateway.rules.rule_check import Verifier

_GATEWAY = "http://gateway.gleaner.svc:8480"
_STEPS = {
    "render": "write RuleEndpoints and Rules as YAML",
    "verify": "probe each Rule, and recreate those that do not work",
}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the subcommands and their options."""
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    render, verify = (
        steps.add_parser(name, help=summary, epilog=examples_of(f"deploy {name}"))
        for name, summary in _STEPS.items()
    )
    _declare_render(render)
    _declare_verify(verify)


def _declare_render(parser: ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    _add_common(parser)
    parser.set_defaults(do=_render)


def _declare_verify(parser: ArgumentParser) -> None:
    parser.add_argument("--check", action="store_true", help="only probe, change nothing in the cluster")
    parser.add_argument("--router", metavar="URL", help="cloudcore's Router (http://127.0.0.1:9443)")
    parser.add_argument("--name", type=options.name, help="name of the gateway that reports (gateway)")
    parser.add_argument(
        "--timeout", metavar="S", type=options.positive(float), default=5.0, help="seconds for each probe (5)"
    )
    _add_common(parser)
    options.add_broker(parser, config_help="the gateway's configuration: its broker, Router and name")
    parser.set_defaults(do=_verify)


def _add_common(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--nodes",
        type=options.nodes,
        help="comma-separated edge nodes (the nodes of the cluster with the edge label)",
    )
    parser.add_argument(
        "--devices",
        type=_devices,
        default=[],
        help="comma-separated NODE/DEVICE whose feedback goes to the cloud (none)",
    )
    parser.add_argument(
        "--gateway",
        metavar="URL",
        default=_GATEWAY,
        help=f"URL of the gateway, as reached from cloudcore ({_GATEWAY})",
    )
    parser.add_argument("--server", metavar="URL", help="API server (in a pod: that of its cluster)")
    parser.add_argument("--server-token", metavar="FILE", type=Path, help="bearer token for the API server")
    parser.add_argument("--server-ca", metavar="PEM", type=Path, help="CA certificate of the API server")


def run(arguments: Namespace) -> int:
    """Run the chosen subcommand."""
    log.configure("error")
    code: int = arguments.do(arguments)
    return code


def _render(arguments: Namespace) -> int:
    from bus.gateway.rules.rules import files  # noqa: PLC0415  # only this command loads HTTP libraries

    nodes = run_service.run(_load_nodes(arguments))
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, text in files(nodes, arguments.gateway).items():
        (arguments.out / name).write_text(text, encoding="utf-8")
        print_line(arguments.out / name)
    return 0


def _verify(arguments: Namespace) -> int:
    return 0 if run_service.run(_check_rules(arguments)) else 1


async def _load_nodes(arguments: Namespace) -> "dict[str, list[str]]":
    async with AsyncExitStack() as stack:
        cluster = None if arguments.nodes else await stack.enter_async_context(_cluster(arguments))
        return await _nodes(arguments, cluster)


async def _check_rules(arguments: Namespace) -> bool:
    """Probe every Rule and repair what does not work; return True if all work in the end."""
    from bus.gateway.config import GatewayConfig  # noqa: PLC0415  # as above
    from bus.gateway.router_client import Router  # noqa: PLC0415  # as above
    from bus.gateway.routes import node_routes  # noqa: PLC0415  # as above
    from bus.gateway.rules.rule_check import Verifier  # noqa: PLC0415  # as above

    gateway = options.settings(arguments, GatewayConfig, name=arguments.name, router=arguments.router)
    async with AsyncExitStack() as stack:
        # The API server is only needed to list the nodes or to change Rules.
        without_cluster = arguments.check and arguments.nodes
        cluster = None if without_cluster else await stack.enter_async_context(_cluster(arguments))
        nodes = await _nodes(arguments, cluster)
        router = await stack.enter_async_context(Router(gateway.router))
        bus = Bus(gateway.broker, transient_client_id("verify"), password=config.password(gateway.broker))
        verifier = Verifier(bus, router, gateway=gateway.name, timeout_s=arguments.timeout)
        await stack.enter_async_context(connected(bus, gateway.broker))
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        receiving = tasks.create_task(verifier.run())
        routes = [route for node, devices in nodes.items() for route in node_routes(node, devices)]
        works = await _check_and_repair(
            verifier, routes, None if arguments.check else cluster, arguments.gateway
        )
        receiving.cancel()
        return works


async def _check_and_repair(
    verifier: "Verifier", routes: "Sequence[Route]", cluster: "Cluster | None", gateway: str
) -> bool:
    """Create missing Rules, probe all, recreate silent ones; without a cluster only probe."""
    from bus.gateway.rules.rule_check import SETTLE_S, create_missing, recreate  # noqa: PLC0415  # as above

    if cluster is not None and (created := await create_missing(cluster, routes, gateway)):
        print_line(f"created missing Rules: {', '.join(created)}")
        await asyncio.sleep(SETTLE_S)
    # Only silent Rules are recreated: that does not help while a node is offline.
    failed, silent = await _probe(verifier, routes)
    if silent and cluster is not None:
        print_line(f"recreating {len(silent)} Rules")
        await recreate(cluster, silent, gateway)
        await asyncio.sleep(SETTLE_S)
        still_failed, _ = await _probe(verifier, silent)
        failed += still_failed - len(silent)
    return failed == 0


async def _probe(verifier: "Verifier", routes: "Sequence[Route]") -> "tuple[int, list[Route]]":
    """Probe and print; return how many Rules do not work, and the routes that recreating may repair."""
    from bus.gateway.rules.rule_check import Verdict  # noqa: PLC0415  # as above

    failed, silent = 0, []
    async for finding in verifier.check(routes):
        works = finding.verdict is Verdict.WORKS
        failed += not works
        if finding.verdict is Verdict.SILENT:
            silent.append(finding.route)
        reason = f" ({finding.reason})" if finding.reason else ""
        print_line(f"{'ok  ' if works else 'FAIL'} {finding.route.name}: {finding.verdict}{reason}")
    return failed, silent


async def _nodes(arguments: Namespace, cluster: "Cluster | None") -> dict[str, list[str]]:
    """Return the devices of each node.

    Raises:
        PermanentError: The cluster has no edge node, or a device belongs to another node.
    """
    names = arguments.nodes or (await cluster.nodes() if cluster else [])
    nodes: dict[str, list[str]] = {options.node(node): [] for node in names}
    if not nodes:
        raise PermanentError("the cluster has no edge nodes", hint="name some with --nodes")
    for node, device in arguments.devices:
        if node not in nodes:
            raise PermanentError(f"device {node}/{device}", expected=f"a node of {sorted(nodes)}", got=node)
        nodes[node].append(device)
    return nodes


def _cluster(arguments: Namespace) -> "Cluster":
    from bus.gateway.rules.kube_api import Cluster  # noqa: PLC0415  # as above

    return Cluster(arguments.server, arguments.server_token, arguments.server_ca)


def _devices(value: str) -> list[tuple[str, str]]:
    """Parse comma-separated devices, each with its node."""
    pairs = [part.partition("/") for part in value.split(",")]
    if not all(slash for _, slash, _ in pairs):
        raise ArgumentTypeError(f"expected NODE/DEVICE, got {value!r}")
    return [(options.node(node), options.device(device)) for node, _, device in pairs]
