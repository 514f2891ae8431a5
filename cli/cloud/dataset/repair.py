"""Find data files of the dataset that cannot be read, and take them out, so that the rest stays usable.

Without --yes nothing is changed. A backup of the named files, put back in their place, loses no photo.
"""

from argparse import ArgumentParser, Namespace

from cli import options
from cli.output import print_line


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    options.add_dataset(parser)
    parser.add_argument("--yes", action="store_true", help="take the damaged files out")
    parser.add_argument("--by", type=options.person, default="reviewer", help="name of the person (reviewer)")


def run(arguments: Namespace) -> int:
    """Print what is damaged; with --yes take it out. Returns 1 while something is damaged."""
    from cloud.dataset.change_log import ChangeLog  # noqa: PLC0415  # each command loads only what it needs
    from cloud.dataset.damage import find_damage, set_aside  # noqa: PLC0415  # as above
    from cloud.dataset.store import Store  # noqa: PLC0415  # as above

    if not _repair_manifests(arguments):
        return 1
    table = Store.open(arguments.dataset, create=False).table
    damage = find_damage(table)
    for one in damage:
        print_line(f"damaged: {', '.join(one.files)}: {one.rows} rows: {one.reason}")
    if not damage:
        print_line("every row can be read")
        return 0
    rows = sum(one.rows for one in damage)
    if not arguments.yes:
        print_line(
            f"restore these files from a backup, or lose {rows} rows with 'gleaner cloud repair --yes'"
        )
        return 1
    files = ", ".join(name for one in damage for name in one.files)
    ChangeLog.open(arguments.dataset).record("repair", arguments.by, f"{rows} rows of {files}", [])
    print_line(f"{rows} rows taken out; their files are in {set_aside(table, damage)}")
    return 0


def _repair_manifests(arguments: Namespace) -> bool:
    """Print which versions cannot be read; with --yes go back to the one before. Returns whether one can."""
    from cloud.dataset.damage import (  # noqa: PLC0415  # as above
        find_damaged_manifests,
        set_manifests_aside,
    )
    from cloud.dataset.table.durable_commit import local_root  # noqa: PLC0415  # as above

    root = local_root(arguments.dataset)
    damaged = [] if root is None else find_damaged_manifests(root)
    for one in damaged:
        print_line(f"damaged: {one.path.name}: version {one.version}: {one.reason}")
    if root is None or not damaged:
        return True
    if not arguments.yes:
        print_line(
            "restore these files of _versions from a backup, or go back to the version before them with"
            " 'gleaner cloud repair --yes'"
        )
        return False
    print_line(f"went back to the version before; the manifests are in {set_manifests_aside(root, damaged)}")
    return True
