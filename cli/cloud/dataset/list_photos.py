"""List the photos of the dataset, its classes, or what was changed manually."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING

from cli import options
from cli.cloud.dataset.selection import add_selection, selection, unknown_class
from cli.output import print_error, print_json, print_line

if TYPE_CHECKING:
    from cloud.dataset.store import Store

_COLUMNS = (
    "photo_id",
    "received_at_ms",
    "split",
    "origin",
    "source",
    "node",
    "device",
    "lane",
    "human_label",
    "human_by",
    "human_at_ms",
    "teacher_label",
    "edge_label",
    "confidence",
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    options.add_dataset(parser)
    add_selection(parser)
    labels = parser.add_mutually_exclusive_group()
    labels.add_argument("--labelled", action="store_true", help="only photos that a person has labelled")
    labels.add_argument("--unlabelled", action="store_true", help="only the others")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--classes", action="store_true", help="list the classes with their numbers instead")
    what.add_argument("--changes", action="store_true", help="list who changed what manually instead")
    parser.add_argument("--limit", type=options.positive(int), default=50, help="most lines (50)")
    parser.add_argument("--json", action="store_true", help="JSON lines")


def run(arguments: Namespace) -> int:
    """Print what was asked for."""
    from cloud.dataset.store import Store  # noqa: PLC0415  # each command loads only what it needs

    store = Store.open(arguments.dataset, create=False)
    if arguments.changes:
        _list_changes(arguments)
    elif arguments.classes:
        _list_classes(arguments, store)
    else:
        _list_photos(arguments, store)
    return 0


def _list_photos(arguments: Namespace, store: "Store") -> None:
    from cloud.dataset.curation import find_photos  # noqa: PLC0415  # as above

    labelled = True if arguments.labelled else False if arguments.unlabelled else None
    ids = find_photos(store, selection(arguments, labelled=labelled))
    found = store.find(ids[: arguments.limit], _COLUMNS)
    if not arguments.json and found:
        print_line(f"{'photo':<32}  {'arrived':<17} {'split':<6} {'label':<16} {'by':<12} from")
    for row in (found[photo_id] for photo_id in ids if photo_id in found):
        if arguments.json:
            print_json({name: row[name] for name in _COLUMNS})
        else:
            print_line(_line(row))
    print_error(f"{len(found)} of {len(ids)} photos{'' if ids else unknown_class(store, arguments.label)}")


def _line(row: Mapping[str, object]) -> str:
    label, by = _label(row)
    origin = row["source"] or f"{row['node'] or '?'}/{row['device'] or '?'} {row['lane'] or ''}"
    arrived = _time(row["received_at_ms"])
    return f"{row['photo_id']}  {arrived} {row['split']:<6} {label:<16} {by:<12} {origin}".rstrip()


def _label(row: Mapping[str, object]) -> tuple[str, str]:
    """Return the label that counts and who gave it."""
    if row["human_label"] is not None:
        return str(row["human_label"]), str(row["human_by"])
    if row["teacher_label"] is not None:
        return str(row["teacher_label"]), "teacher"
    return str(row["edge_label"] or "-"), "edge" if row["edge_label"] else "-"


def _time(at_ms: object) -> str:
    assert isinstance(at_ms, int)
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M}Z"


def _list_classes(arguments: Namespace, store: "Store") -> None:
    from cli.cloud.dataset.import_photos import show_similar  # noqa: PLC0415  # as above
    from cloud.dataset.training_set import label_counts  # noqa: PLC0415  # as above

    counts = label_counts(store)
    for name, count in counts.items():
        if arguments.json:
            print_json({"class": name, "photos": count})
        else:
            print_line(f"{name}: {count}")
    if not arguments.json:
        show_similar(list(counts))


def _list_changes(arguments: Namespace) -> None:
    from cloud.dataset.change_log import ChangeLog  # noqa: PLC0415  # as above

    changes = list(islice(ChangeLog.open(arguments.dataset).newest(arguments.limit), arguments.limit))
    if not changes:
        print_error("nothing was changed manually")
    for change in changes:
        if arguments.json:
            print_json(change)
        else:
            photos = f"{len(change.photo_ids)} photos"
            print_line(f"{_time(change.at_ms)} {change.by}: {change.action}: {change.detail}: {photos}")
