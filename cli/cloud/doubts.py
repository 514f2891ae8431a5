"""Name the labels that are likely wrong, people's among them, for a person to look at again."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

import msgspec

from cli import options


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    options.add_dataset(parser)
    parser.add_argument(
        "--backbone",
        default="efficientnet-lite0",
        help="whose view of the photos counts (efficientnet-lite0)",
    )
    parser.add_argument(
        "--limit", type=options.positive(int), default=50, help="at most so many, least credible first (50)"
    )
    parser.add_argument("--json", action="store_true", help="JSON lines")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="a contact sheet of them, .png or .html")
    options.add_seed(parser)
    options.add_features(parser)


def run(arguments: Namespace) -> int:
    """Look at all labelled photos, gold ones too, and list the doubts."""
    from cli.progress import Bars  # noqa: PLC0415  # each step loads what it needs, and no more
    from cloud.dataset.store import Store  # noqa: PLC0415  # as above
    from cloud.dataset.training_set import examples  # noqa: PLC0415  # as above
    from cloud.labeling.contact_sheet import Frame, write_sheet  # noqa: PLC0415  # as above

    store = Store.open(arguments.dataset, create=False)
    photos = [*examples(store), *examples(store, split="gold")]
    print("loading TensorFlow …", file=sys.stderr, flush=True)
    from cloud.labeling.label_errors import doubts  # noqa: PLC0415  # as above

    with Bars() as bars:
        found = doubts(photos, arguments.backbone, arguments.cache, seed=arguments.seed, progress=bars)
    images, frames = {photo.photo_id: photo.image for photo in photos}, []
    for doubt in found[: arguments.limit]:
        claim = f"{doubt.label} by {doubt.source}"
        line = f"{doubt.photo_id}  {doubt.credibility:.2f} {claim:<20} likely {doubt.likely}"
        print(msgspec.json.encode(doubt).decode() if arguments.json else line)
        frames.append(
            Frame(images[doubt.photo_id], (f"{claim} {doubt.credibility:.2f}", f"likely {doubt.likely}"))
        )
    if arguments.sheet is not None:
        write_sheet(arguments.sheet, frames)
    print(f"{len(found)} of {len(photos)} labels are doubtful", file=sys.stderr)
    return 0
