"""Export the labelled photos of the dataset, with the source of each label.

Formats: folder (SPLIT/CLASS/ID.jpg and metadata.csv), coco, parquet (Hugging Face), tfrecord, fiftyone and
label-studio. Forgotten photos are in no export that is made later.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from cli import options
from cli.cloud.dataset.selection import add_selection, selection
from cli.cloud.left_out import show_left_out
from cli.output import print_line

FORMATS = ("folder", "coco", "parquet", "tfrecord", "fiftyone", "label-studio")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("directory", type=Path, metavar="DIR", help="a new folder")
    parser.add_argument("--format", choices=FORMATS, default="folder", help="(folder)")
    options.add_dataset(parser)
    add_selection(parser)


def run(arguments: Namespace) -> int:
    """Write the folder; print the number of photos by class and what was left out."""
    from cli.progress import Bars  # noqa: PLC0415  # each command loads only what it needs
    from cloud.dataset.exporting.exporter import export  # noqa: PLC0415  # as above
    from cloud.dataset.store import Store  # noqa: PLC0415  # as above

    store = Store.open(arguments.dataset, create=False)
    with Bars() as bars:
        counts, left_out = export(store, arguments.directory, arguments.format, selection(arguments), bars)
    show_left_out(left_out)
    for label, count in sorted(counts.items()):
        print_line(f"{label}: {count} photos")
    print_line(f"{counts.total()} photos exported to {arguments.directory}")
    return 0
