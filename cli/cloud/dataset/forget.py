"""Take photos out of the dataset for good: from its older versions, caches and dead letters, too.

What stays is the id of each with two times, so that a sample that is sent again does not bring it back.
Models that were trained on the photos stay as they are, and cannot be trained again exactly. Edge nodes are
not told: they delete a sample after its receipt. Exports that were made before are not changed.
"""

import sys
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from cli import options
from cli.cloud.dataset.selection import add_selection, selection
from cli.output import print_line
from schemas.errors import PermanentError

if TYPE_CHECKING:
    from cloud.dataset.curation import Forgotten


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    options.add_dataset(parser)
    add_selection(parser)
    parser.add_argument("--all", action="store_true", help="every photo, if nothing else is given")
    parser.add_argument("--dry-run", action="store_true", help="print how many, and change nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--by", type=options.person, default="reviewer", help="name of the person (reviewer)")
    options.add_features(parser)


def run(arguments: Namespace) -> int:
    """Ask, and forget the selected photos."""
    from cloud.dataset.change_log import ChangeLog  # noqa: PLC0415  # each command loads only what it needs
    from cloud.dataset.curation import Selection, find_photos, forget_photos  # noqa: PLC0415  # as above
    from cloud.dataset.store import Store  # noqa: PLC0415  # as above

    chosen = selection(arguments)
    if chosen == Selection() and not arguments.all:
        raise PermanentError("no photos are selected", hint="name some, or use --device, --before or --all")
    store = Store.open(arguments.dataset, create=False)
    ids = find_photos(store, chosen)
    if arguments.dry_run or not ids:
        print_line(f"{len(ids)} photos would be forgotten" if ids else "no photo is selected")
        return 0
    if not (arguments.yes or confirmed(len(ids))):
        return 1
    done = forget_photos(store, ChangeLog.open(arguments.dataset), chosen, arguments.by)
    forget_elsewhere(arguments, done)
    return 0


def forget_elsewhere(arguments: Namespace, done: "Forgotten") -> None:
    """Remove forgotten photos from dead letters and caches too, and say what was done."""
    from cloud.dataset.photo_caches import purge_caches  # noqa: PLC0415  # as above

    letters = _forget_dead_letters(arguments.dataset, done.photo_ids)
    purge_caches(arguments.cache, done.content_ids)
    print_line(f"{len(done.photo_ids)} photos and {letters} dead letters forgotten")
    if done.tags:
        print_line(f"older versions of the dataset are gone: {', '.join(sorted(done.tags))}")


def confirmed(count: int) -> bool:
    """Ask at the terminal.

    Raises:
        PermanentError: There is no terminal.
    """
    if not sys.stdin.isatty():
        raise PermanentError(f"{count} photos would be forgotten for good", hint="confirm it with --yes")
    sys.stdout.write(f"Forget {count} photos for good? [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _forget_dead_letters(dataset: str, photo_ids: list[str]) -> int:
    from cloud.dataset.dead_letters import DeadLetterTable  # noqa: PLC0415  # as above

    try:
        letters = DeadLetterTable.open(dataset, create=False)
    except PermanentError:  # there is none
        return 0
    return letters.remove(photo_ids)
