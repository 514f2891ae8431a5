"""Run the gateway between the cloud's broker and KubeEdge's Router."""

from argparse import ArgumentParser, Namespace

from bus import config, log
from cli import options, run_service


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options, which override the configuration file."""
    parser.add_argument("--name", type=options.name, help="gateway, gateway-2, … (gateway)")
    parser.add_argument("--nodes", type=options.nodes, help="comma-separated edge nodes (edge-1)")
    parser.add_argument(
        "--listen", metavar="HOST:PORT", help="address to which the Router POSTs (127.0.0.1:8480)"
    )
    parser.add_argument("--router", metavar="URL", help="cloudcore's Router (http://127.0.0.1:9443)")
    options.add_service(parser)


def run(arguments: Namespace) -> int:
    """Run until SIGTERM or Ctrl-C."""
    from bus.gateway import service as gateway_service  # noqa: PLC0415  # only this command loads HTTP libraries
    from bus.gateway.config import GatewayConfig  # noqa: PLC0415  # as above

    loaded = options.settings(
        arguments,
        GatewayConfig,
        name=arguments.name,
        nodes=arguments.nodes,
        listen=arguments.listen,
        router=arguments.router,
    )
    log.configure(arguments.log_level, name=loaded.name)
    run_service.serve("gateway", loaded, gateway_service.run(loaded, config.password(loaded.broker)))
    return 0
