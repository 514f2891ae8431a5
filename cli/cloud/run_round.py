"""Run one round now: teach, train, release what the gate promotes, and tune the harvest policies."""

from argparse import ArgumentParser, Namespace

from bus import config, log
from cli import run_service
from cli.cloud.watch import add_trainer, trainer_config
from cli.output import print_line


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options; each overrides the configuration file."""
    add_trainer(parser)


def run(arguments: Namespace) -> int:
    """Run it; fails if the round fails or another one is running."""
    from cloud.retraining import loop  # noqa: PLC0415  # loads Lance, which other commands have no use for

    loaded = trainer_config(arguments)
    log.configure(arguments.log_level, name=loaded.name)
    card = run_service.run(loop.run_one_round(loaded, config.password(loaded.broker)))
    verdict = card.verdict
    print_line(f"version {card.version}: {verdict.decision if verdict else 'no champion to beat'}")
    return 0
