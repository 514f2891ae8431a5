"""Start a round of training whenever there is a reason, until told to stop."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from bus import config, log
from bus.config import Broker
from cli import options, run_service

if TYPE_CHECKING:
    from cloud.registry.model_card import Card
    from cloud.retraining.config import TrainerConfig
    from cloud.retraining.loop import Plan, Program

_GLEANER = (sys.executable, "-m", "cli.main", "cloud")
_PLACE = ("--nodes", "--config", "--broker", "--username", "--ca", "--cert", "--key")
_AT_ONCE = (*_PLACE, "--model", "--url", "--signing-key")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options; each overrides the configuration file."""
    parser.add_argument("--every", metavar="S", type=options.positive(float), help="between two looks (30)")
    add_trainer(parser)


def add_trainer(parser: ArgumentParser) -> None:
    """Declare what concerns every round."""
    parser.add_argument("--name", type=options.name, help="trainer, trainer-2, … (trainer)")
    parser.add_argument("--dataset", help=f"folder or URL of the table ({options.DATASET})")
    parser.add_argument("--models", metavar="DIR", help="where versions go (models)")
    parser.add_argument("--cache", metavar="DIR", help=f"keeps features between rounds ({options.FEATURES})")
    parser.add_argument("--backbone", help="what is trained (efficientnet-lite0)")
    parser.add_argument(
        "--release",
        metavar="NODES",
        type=options.names,
        help="bring what the gate lets pass out on these nodes, and tune their policies",
    )
    options.add_service(parser)


def run(arguments: Namespace) -> int:
    """Run until told to stop."""
    from cloud.retraining import loop  # noqa: PLC0415  # Lance is loaded by the steps that need it

    loaded = trainer(arguments, every_s=arguments.every)
    log.configure(arguments.log_level, name=loaded.name)
    run_service.run(loop.watch(loaded, plan(loaded), config.password()))
    return 0


def trainer(arguments: Namespace, **overrides: object) -> "TrainerConfig":
    """Return the configuration, overridden by options that were given."""
    from cloud.retraining.config import TrainerConfig  # noqa: PLC0415  # as above

    release = arguments.release and ["--nodes", ",".join(arguments.release)]
    names = ("name", "dataset", "models", "cache", "backbone")
    given = {name: getattr(arguments, name) for name in names}
    return options.settings(arguments, TrainerConfig, release=release, **given, **overrides)


def plan(trainer: "TrainerConfig") -> "Plan":
    """Return what a round runs: the commands that a person would type."""
    from cloud.retraining.loop import Plan  # noqa: PLC0415  # as above

    dataset, out = ("--dataset", trainer.dataset), ("--out", trainer.models)
    places = (*dataset, "--cache", trainer.cache)
    teach = (*_GLEANER, "teach", *places, "--backbones", ",".join(trainer.teachers))
    tflite = ("--tflite",) if trainer.tflite else ()
    train = (*_GLEANER, "train", *places, *out, "--backbone", trainer.backbone, *tflite)
    steps = (teach, train) if trainer.teachers else (train,)
    if trainer.release is None:
        return Plan(steps)
    connection, chosen = _connection(trainer.broker), trainer.release

    def release(card: "Card") -> "Program":
        bundle = str(Path(trainer.models) / f"{card.version}.tar")
        # The first version has none to go back to, and so no rollout in stages.
        if card.parent is None:
            force = ["--force"] if "--force" in chosen else []
            return (*_GLEANER, "release", bundle, *connection, *_options(chosen, _AT_ONCE), *force)
        return (*_GLEANER, "rollout", bundle, *dataset, *connection, *chosen)

    tune = (*_GLEANER, "policy", "--tune", *dataset, *out, *connection, *_options(chosen, _PLACE))
    return Plan(steps, release, tune)


def _options(rollout: Iterable[str], known: Collection[str]) -> list[str]:
    """Return those options of a rollout that another command knows too, and all its nodes as one option."""
    words, kept, nodes = iter(rollout), list[str](), list[str]()
    for word in words:
        option, equals, value = word.partition("=")
        if option not in known:
            continue
        if not equals:
            value = next(words, "")
        if option == "--nodes":
            nodes.append(value)
        else:
            kept += [option, value]
    return ["--nodes", ",".join(nodes), *kept] if nodes else kept


def _connection(broker: Broker) -> list[str]:
    words = ["--broker", f"{broker.host}:{broker.port}"]
    if broker.username is not None:
        words += ["--username", broker.username]
    if (tls := broker.tls) is not None:
        given = {"--ca": tls.ca, "--cert": tls.certificate, "--key": tls.key}
        words += [word for pair in given.items() if pair[1] is not None for word in pair if word is not None]
    return words
