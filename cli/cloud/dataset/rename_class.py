"""Rename a class of the dataset: in the labels of people, teachers and edges, and in the gold set.

Versions in service answer with the old name until a version with the new name is trained and released.
"""

from argparse import ArgumentParser, Namespace

from cli import options
from cli.output import print_line


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("before", metavar="FROM", help="class as 'gleaner cloud list --classes' prints it")
    parser.add_argument("into", metavar="INTO", help="class afterwards")
    options.add_dataset(parser)
    parser.add_argument("--by", type=options.person, default="reviewer", help="name of the person (reviewer)")


def run(arguments: Namespace) -> int:
    """Rename it; INTO must not exist."""
    return rename(arguments, merge=False)


def rename(arguments: Namespace, *, merge: bool) -> int:
    """Change the class of all its photos and print their number."""
    from cloud.dataset.change_log import ChangeLog  # noqa: PLC0415  # each command loads only what it needs
    from cloud.dataset.curation import rename_class  # noqa: PLC0415  # as above
    from cloud.dataset.store import Store  # noqa: PLC0415  # as above

    store, log = Store.open(arguments.dataset, create=False), ChangeLog.open(arguments.dataset)
    count = rename_class(store, log, arguments.before, arguments.into, by=arguments.by, merge=merge)
    print_line(f"{arguments.before} -> {arguments.into}: {count} photos")
    return 0
