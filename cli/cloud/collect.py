"""Store samples and labels from the bus in the dataset until stopped."""

import os
from argparse import ArgumentParser, Namespace

from bus import config, log
from cli import options, run_service


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options; each overrides the configuration file."""
    parser.add_argument("--name", type=options.name, help="collector, collector-2, … (collector)")
    parser.add_argument("--dataset", help=f"folder or URL of the table ({options.DATASET})")
    options.add_service(parser)


def run(arguments: Namespace) -> int:
    """Run the collector until it is stopped by a signal."""
    from cloud.collector import collector  # noqa: PLC0415  # Lance is loaded by the commands that need it
    from cloud.collector.config import CollectorConfig  # noqa: PLC0415  # as above

    loaded = options.settings(arguments, CollectorConfig, name=arguments.name, dataset=arguments.dataset)
    log.configure(arguments.log_level, name=loaded.name)
    os.umask(0o077)  # the dataset has people's photos: other users of the machine may not read them
    run_service.serve("cloud collect", loaded, collector.run(loaded, config.password(loaded.broker)))
    return 0
