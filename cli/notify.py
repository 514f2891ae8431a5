"""Notify people of events and silent nodes, through Apprise."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from bus import config, log
from cli import options, run_service


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options, which override the configuration file."""
    parser.add_argument("--name", type=options.name, help="notify, notify-2, … (notify)")
    parser.add_argument(
        "--urls-file",
        metavar="FILE",
        help="one Apprise URL on each line (/etc/gleaner/notify.urls)",
    )
    options.add_service(parser)


def run(arguments: Namespace) -> int:
    """Run until SIGTERM or Ctrl-C."""
    from bus.notifications import service as notify_service  # noqa: PLC0415  # loaded by this command alone
    from bus.notifications.config import NotifyConfig  # noqa: PLC0415  # as above
    from bus.notifications.receivers import read_receivers  # noqa: PLC0415  # as above

    loaded = options.settings(arguments, NotifyConfig, name=arguments.name, urls_file=arguments.urls_file)
    receivers = read_receivers(Path(loaded.urls_file))
    log.configure(arguments.log_level, name=loaded.name)
    password = config.password(loaded.broker)
    run_service.serve("notify", loaded, notify_service.run(loaded, receivers, password))
    return 0
