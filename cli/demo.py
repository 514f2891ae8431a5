"""Run the whole loop on this machine: photos in, answers out, a better model after one round."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from cli import options


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--photos", metavar="DIR", type=Path, help="one folder per class, or train/ stream/ gold/ above them"
    )
    parser.add_argument("--backbone", default="efficientnet-lite0", help="or xception-small, xception")
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("demo-out"), help="for report.html")
    options.add_seed(parser, "every random choice")
    parser.add_argument("--keep", action="store_true", help="keep the run's folder, with logs and dataset")


def run(arguments: Namespace) -> int:
    """Play it; 0 if nothing was lost, nothing failed and version 2 is better."""
    import importlib  # noqa: PLC0415  # the demo stands above the commands, so it is found by name

    code: int = importlib.import_module("demo.run").play(
        backbone=arguments.backbone,
        out=arguments.out,
        source=arguments.photos,
        seed=arguments.seed,
        keep=arguments.keep,
    )
    return code
