"""Options that select photos of the dataset."""

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from cli import options
from schemas.lanes import LANES

if TYPE_CHECKING:
    from cloud.dataset.curation import Selection


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
