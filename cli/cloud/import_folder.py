"""Import labelled photos into the dataset, from a folder with one folder per class."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from cli import options


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("directory", type=Path, metavar="DIR", help="a folder with one folder per class")
    options.add_dataset(parser)
    parser.add_argument(
        "--split", choices=("train", "gold"), default="train", help="train on them, or evaluate only (train)"
    )
    parser.add_argument("--by", type=options.person, default="import", help="who labelled them (import)")


def run(arguments: Namespace) -> int:
    """Import what can be read; print the other files with the reason."""
    from cli.progress import Bars  # noqa: PLC0415  # each command loads what it needs, and no more
    from cloud.dataset.folder_import import import_folder  # noqa: PLC0415  # as above
    from cloud.dataset.store import Store  # noqa: PLC0415  # as above

    store = Store.open(arguments.dataset)
    with Bars() as bars:
        done = import_folder(store, arguments.directory, arguments.split, bars, arguments.by)
    for reason in done.skipped.values():
        print(f"skipped: {reason}", file=sys.stderr)
    print(
        f"{done.stored} photos stored, {done.duplicate} were there, {len(done.skipped)} skipped; "
        f"dataset version {store.version}"
    )
    return 0
