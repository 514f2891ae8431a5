"""Run the whole loop on this machine: classify photos, harvest, label, train and release a better model."""

import importlib
from argparse import ArgumentParser, Namespace
from pathlib import Path

from cli import options
from schemas.errors import PermanentError


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--photos",
        metavar="DIR",
        type=Path,
        help="one folder per class, or train/ and test/ above them, or a manifest.csv with path and label "
        "(default: synthetic photos)",
    )
    parser.add_argument(
        "--backbone",
        default="efficientnet-lite0",
        help="efficientnet-lite0 (default), xception-small, xception, or a network of your own",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        default=Path("demo-out"),
        help="folder for report.html (default: demo-out)",
    )
    options.add_seed(parser, "every random choice")
    parser.add_argument(
        "--stay",
        action="store_true",
        help="leave everything and the console running afterwards, until Ctrl-C",
    )
    parser.add_argument("--keep", action="store_true", help="keep the temporary folder with logs and dataset")


def run(arguments: Namespace) -> int:
    """Run the demonstration; return 0 if no photo was lost, none failed and version 2 is better."""
    try:
        # By name, because the demonstration is above the commands, and no wheel has it.
        demo = importlib.import_module("demo.run")
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("demo"):
            raise
        raise PermanentError(
            "the demonstration is not installed: only a checkout has it", hint="run 'make demo' in one"
        ) from None
    code: int = demo.run_demo(
        backbone=arguments.backbone,
        out=arguments.out,
        source=arguments.photos,
        seed=arguments.seed,
        keep=arguments.keep,
        stay=arguments.stay,
    )
    return code
