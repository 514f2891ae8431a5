"""Train, evaluate and pack the next version of the model.

A class with fewer than 3 human labels is left out once two other classes have 3; --classes includes it.
"""

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from cli import options
from cli.cloud.verdict import show_verdict

if TYPE_CHECKING:
    from cloud.training.train import Trained


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    whole = options.positive(int)
    options.add_dataset(parser)
    parser.add_argument("--dataset-version", type=whole, help="version to train from (the newest)")
    parser.add_argument(
        "--backbone",
        default="efficientnet-lite0",
        help="xception, xception-small or (default) efficientnet-lite0",
    )
    options.add_models(parser)
    parser.add_argument("--version", type=whole, help="number of the new version (the next one)")
    parser.add_argument("--classes", help="comma-separated, in the order of the outputs (all labels, sorted)")
    parser.add_argument(
        "--tflite",
        action="store_true",
        help="write the network for LiteRT too, for `gleaner modelserver --prefer_tflite_model`",
    )
    options.add_seed(parser)
    options.add_features(parser)


def run(arguments: Namespace) -> int:
    """Train a version and print how the candidates and the gate judged it."""
    from cli.progress import Bars  # noqa: PLC0415  # each command loads what it needs, and no more
    from cloud.dataset.example import MIN_CLASS_LABELS  # noqa: PLC0415  # as above
    from cloud.training.pipeline import TrainingOptions, run_training  # noqa: PLC0415  # as above

    chosen = TrainingOptions(
        dataset=arguments.dataset,
        models=str(arguments.out),
        cache=str(arguments.cache),
        backbone=arguments.backbone,
        version=arguments.version,
        dataset_version=arguments.dataset_version,
        classes=tuple(arguments.classes.split(",")) if arguments.classes else None,
        tflite=arguments.tflite,
        seed=arguments.seed,
    )
    with Bars() as bars:
        outcome = run_training(chosen, bars)
    if outcome.trained is None:  # the first worker of the team prints
        return 0
    for label, count in sorted(outcome.waiting.items()):
        print(f"class {label!r} waits for labels: {count} of {MIN_CLASS_LABELS}")
    _show(outcome.trained)
    return 0


def _show(trained: "Trained") -> None:
    card = trained.card
    for candidate in card.candidates:
        chosen = "→" if candidate.name == card.chosen else " "
        measured = "" if candidate.gold_accuracy is None else f", {candidate.gold_accuracy:.1%} on gold"
        print(f"{chosen} {candidate.name}: {candidate.photos} photos{measured}")
    show_verdict(card.verdict)
    if not card.auto:
        print("the lane auto did not help twice running: 'gleaner cloud policy --auto off' switches it off")
    print(f"version {card.version}: {trained.bundle_path} ({trained.size_bytes / 1e6:.1f} MB)")
