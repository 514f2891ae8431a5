"""Give one photo of the dataset a label, harvested or imported; no broker is needed."""

from argparse import ArgumentParser, Namespace
from typing import Literal

from cli import options
from cli.output import print_line
from schemas.class_names import NEITHER


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "photo", metavar="PHOTO", help="id, first digits of an id, or name of an imported file"
    )
    parser.add_argument(
        "label", metavar="CLASS", help=f"a class, or {NEITHER} for a photo of none of the classes"
    )
    options.add_dataset(parser)
    parser.add_argument("--by", type=options.person, default="reviewer", help="name of the person (reviewer)")


def run(arguments: Namespace) -> int:
    """Label a photo that no person has labelled otherwise."""
    return label_photo(arguments, "label")


def label_photo(arguments: Namespace, action: Literal["label", "relabel"]) -> int:
    """Store the label and print what it replaced."""
    from bus.mqtt.presence import now_ms  # noqa: PLC0415  # each command loads only what it needs
    from cloud.dataset.change_log import ChangeLog  # noqa: PLC0415  # as above
    from cloud.dataset.curation import find_photo, set_label  # noqa: PLC0415  # as above
    from cloud.dataset.labels import Label  # noqa: PLC0415  # as above
    from cloud.dataset.store import Store  # noqa: PLC0415  # as above
    from schemas.class_names import class_name  # noqa: PLC0415  # as above

    store = Store.open(arguments.dataset, create=False)
    photo_id = find_photo(store, arguments.photo)
    given = Label(photo_id=photo_id, label=class_name(arguments.label), by=arguments.by, at_ms=now_ms())
    before = set_label(store, ChangeLog.open(arguments.dataset), given, action)
    replaced = f" (was {before})" if before not in (None, given.label) else ""
    print_line(f"{photo_id}: {given.label}{replaced}")
    return 0
