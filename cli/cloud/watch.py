"""Run rounds (teach, train, release, tune) whenever there is a reason, until stopped."""

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from msgspec import structs

from bus import config, log
from cli import options, run_service
from cli.cloud import ray_option

if TYPE_CHECKING:
    from cloud.retraining.config import TrainerConfig


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options; each overrides the configuration file."""
    parser.add_argument(
        "--every", metavar="S", type=options.positive(float), help="pause between two looks, in seconds (30)"
    )
    add_trainer(parser)


def add_trainer(parser: ArgumentParser) -> None:
    """Declare the options of every round."""
    parser.add_argument("--name", type=options.name, help="trainer, trainer-2, … (trainer)")
    parser.add_argument("--dataset", help=f"folder or URL of the table ({options.DATASET})")
    parser.add_argument("--models", metavar="DIR", help="folder of the versions (models)")
    parser.add_argument(
        "--cache", metavar="DIR", help=f"keeps embeddings between rounds ({options.SHOWN_FEATURES})"
    )
    parser.add_argument("--backbone", help="backbone of the versions (efficientnet-lite0)")
    parser.add_argument(
        "--classes",
        type=options.class_names,
        help="comma-separated; photos of others are left out (all labels)",
    )
    ray_option.add_arguments(parser)
    parser.add_argument(
        "--release",
        metavar="NODES",
        type=options.nodes,
        help="roll promoted versions out on these nodes, and tune their policies",
    )
    options.add_service(parser)


def run(arguments: Namespace) -> int:
    """Run until stopped."""
    from cloud.retraining import loop  # noqa: PLC0415  # loads Lance, which other commands have no use for

    loaded = trainer_config(arguments, every_s=arguments.every)
    log.configure(arguments.log_level, name=loaded.name)
    run_service.serve("cloud watch", loaded, loop.run_loop(loaded, config.password(loaded.broker)))
    return 0


def trainer_config(arguments: Namespace, **overrides: object) -> "TrainerConfig":
    """Return the file's configuration, overridden by options that were given.

    `--release` replaces the nodes of a [release] table and leaves its other fields.

    Raises:
        ConfigError: The file cannot be used, or a value is out of its range.
    """
    from cloud.retraining.config import TrainerConfig  # noqa: PLC0415  # as above
    from cloud.rollout.options import RolloutOptions  # noqa: PLC0415  # as above

    names = ("name", "dataset", "models", "cache", "backbone", "classes", "ray")
    given = {name: getattr(arguments, name) for name in names}
    loaded = options.settings(arguments, TrainerConfig, **given, **overrides)
    if not arguments.release:
        return loaded
    # Only the nodes: signing key, stages and rules of the file stay in force.
    release = structs.replace(loaded.release or RolloutOptions(), groups=(tuple(arguments.release),))
    return structs.replace(loaded, release=release)
