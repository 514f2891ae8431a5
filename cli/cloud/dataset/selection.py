"""Options that select photos of the dataset."""

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from cli import options
from schemas.lanes import LANES
from schemas.suggest import did_you_mean

if TYPE_CHECKING:
    from cloud.dataset.curation import Selection
    from cloud.dataset.store import Store


def add_selection(parser: ArgumentParser) -> None:
    """Declare the options; all that are given must hold."""
    parser.add_argument(
        "photos",
        nargs="*",
        metavar="PHOTO",
        help="id, first digits of an id, or name of an imported file",
    )
    parser.add_argument("--device", type=options.camera, metavar="NODE/DEVICE", help="photos of this camera")
    parser.add_argument(
        "--class",
        dest="label",
        type=options.class_label,
        metavar="CLASS",
        help="photos that a person labelled so",
    )
    parser.add_argument("--split", choices=("train", "gold", "stream"))
    parser.add_argument("--lane", choices=LANES, help="why it was harvested")
    parser.add_argument("--origin", choices=("sample", "import"), help="harvested, or imported")
    parser.add_argument("--before", type=options.utc_ms, metavar="DATE", help="arrived before then, UTC")
    parser.add_argument("--after", type=options.utc_ms, metavar="DATE", help="arrived then or later, UTC")


def unknown_class(store: "Store", label: str | None) -> str:
    """Return a sentence if a class was asked for that no photo has, else an empty text."""
    from cloud.dataset.training_set import label_counts  # noqa: PLC0415  # each command loads what it needs

    if label is None or label in (counts := label_counts(store)):
        return ""
    return f"; no photo has the class {label!r}{did_you_mean(label, counts)}"


def selection(arguments: Namespace, *, labelled: bool | None = None) -> "Selection":
    """Return the selection of the options."""
    from cloud.dataset.curation import Selection  # noqa: PLC0415  # each command loads what it needs

    node, device = arguments.device or (None, None)
    return Selection(
        photos=tuple(arguments.photos),
        node=node,
        device=device,
        label=arguments.label,
        split=arguments.split,
        lane=arguments.lane,
        origin=arguments.origin,
        labelled=labelled,
        before_ms=arguments.before,
        after_ms=arguments.after,
    )
