"""Train, evaluate and pack the next version of the model.

A class with fewer than 3 human labels is left out once two other classes have 3; --classes includes it.
Photos that cannot be used are left out and listed: with a label of another class or none that can be a class
name, with a picture that cannot be decoded, equal to a gold or freshly audited photo, or in a damaged row.
"""

import os
from argparse import ArgumentParser, Namespace
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

from cli import options
from cli.cloud import ray_option
from cli.cloud.left_out import show_left_out
from cli.cloud.verdict import show_trained
from cli.output import print_error, print_line
from cli.progress import Bars

if TYPE_CHECKING:
    from cloud.training.pipeline import TrainingOptions


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    whole = options.positive(int)
    options.add_dataset(parser)
    parser.add_argument("--dataset-version", type=whole, help="version to train from (the newest)")
    parser.add_argument(
        "--backbone",
        default="efficientnet-lite0",
        help="xception, xception-small, compact, efficientnet-lite0 (default), -lite0-grid, -lite1, -lite2; "
        "or your own: FILE.keras:PREPROCESSING or MODULE:NAME, see docs/model-contract.md",
    )
    parser.add_argument(
        "--also",
        metavar="BACKBONES",
        default="efficientnet-lite0-grid,compact",
        help="comma-separated; tried too if --backbone answers less than 95 %% of the held-out labels right, "
        "and there are 60 human labels, or 300 to train from scratch; '' for none "
        "(efficientnet-lite0-grid,compact)",
    )
    options.add_models(parser)
    parser.add_argument("--version", type=whole, help="number of the new version (the next one)")
    parser.add_argument(
        "--classes",
        type=options.class_names,
        help="comma-separated, in the order of the outputs; others are left out (all labels, sorted)",
    )
    options.add_tflite(parser, "for model servers without TensorFlow")
    options.add_seed(parser)
    options.add_features(parser)
    ray_option.add_arguments(parser)


def run(arguments: Namespace) -> int:
    """Train a version and print how the candidates and the gate judged it."""
    from cloud.dataset.example import MIN_CLASS_LABELS  # noqa: PLC0415  # each command loads what it needs
    from cloud.dataset.store import Store  # noqa: PLC0415  # as above
    from cloud.ray_jobs.ahead import check_alone  # noqa: PLC0415  # as above
    from cloud.registry.registry import Registry  # noqa: PLC0415  # as above
    from cloud.training.pipeline import TrainingOptions, run_training  # noqa: PLC0415  # as above

    chosen = TrainingOptions(
        dataset=arguments.dataset,
        models=str(arguments.out),
        cache=str(arguments.cache),
        backbone=arguments.backbone,
        also=tuple(filter(None, arguments.also.split(","))),
        version=arguments.version,
        dataset_version=arguments.dataset_version,
        classes=arguments.classes,
        tflite=arguments.tflite,
        seed=arguments.seed,
        ray=arguments.ray,
    )
    check_alone(arguments.ray)
    Store.open(arguments.dataset, create=False)  # a wrong path makes no models folder for the lock
    # The workers of a team, which TF_CONFIG names, train together; only the first one writes.
    lock = nullcontext() if "TF_CONFIG" in os.environ else Registry(arguments.out).round_lock()
    with lock, Bars() as bars:
        outcome = run_training(chosen, bars, partial(_embed, chosen, bars) if arguments.ray else None)
    if outcome.trained is None:  # the first worker of the team prints
        return 0
    show_left_out(outcome.left_out)
    for warning in outcome.warnings:
        print_error(f"warning: {warning}")
    for label, count in sorted(outcome.waiting.items()):
        print_line(f"class {label!r} waits for labels: {count} of {MIN_CLASS_LABELS}")
    show_trained(outcome.trained)
    return 0


def _embed(options: "TrainingOptions", bars: Bars, backbone: str) -> None:
    """Embed on the Ray cluster what the training will embed by a backbone."""
    from cloud.ray_jobs.ahead import embed_for_training  # noqa: PLC0415  # as above

    if not embed_for_training(options, backbone, bars):
        print_error(f"--ray: {backbone} is trained from scratch, so nothing is embedded")
