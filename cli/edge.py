"""Run the handler of an edge node: classify photos, publish results and send samples to the cloud."""

from argparse import ArgumentParser, Namespace

from bus import config, log
from cli import options, run_service


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options; each overrides the configuration file."""
    parser.add_argument("--node", type=options.node, help="name of this edge node (default: edge-1)")
    parser.add_argument("--serving", metavar="HOST:PORT", help="model server (default: 127.0.0.1:8500)")
    parser.add_argument("--model", help="name of the model on it (default: pets)")
    parser.add_argument("--models-dir", metavar="DIR", help="folder shared with the model server")
    options.add_state(parser, "edge", "the outbox and the results")
    options.add_service(parser)


def run(arguments: Namespace) -> int:
    """Run until a signal arrives."""
    from edge import service as edge_service  # noqa: PLC0415  # gRPC is loaded by this command alone
    from edge.config import EdgeConfig  # noqa: PLC0415  # as above

    loaded = options.settings(
        arguments,
        EdgeConfig,
        node=arguments.node,
        serving=arguments.serving,
        model=arguments.model,
        models_dir=arguments.models_dir,
        state_dir=arguments.state_dir or (None if arguments.config else options.default_state("edge")),
    )
    log.configure(arguments.log_level, node=loaded.node)
    run_service.serve("edge", loaded, edge_service.run(loaded, config.password(loaded.broker)))
    return 0
