"""Play one round of training now: teach, train, release what the gate lets pass, and tune the policies."""

from argparse import ArgumentParser, Namespace

from bus import config, log
from cli import run_service
from cli.cloud.watch import add_trainer, plan, trainer


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options; each overrides the configuration file."""
    add_trainer(parser)


def run(arguments: Namespace) -> int:
    """Play it, and fail if it fails, or if another one is under way."""
    from cloud.retraining import loop  # noqa: PLC0415  # Lance is loaded by the steps that need it

    loaded = trainer(arguments)
    log.configure(arguments.log_level, name=loaded.name)
    card = run_service.run(loop.play_once(loaded, plan(loaded), config.password()))
    if card is not None:
        verdict = card.verdict
        print(f"version {card.version}: {verdict.decision if verdict else 'no champion to beat'}")
    return 0
