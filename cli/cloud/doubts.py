"""List the labels that are probably wrong, human ones included, for a reviewer to check."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from cli import options
from cli.cloud import ray_option
from cli.output import print_error, print_json, print_line
from schemas.text import escaped


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    options.add_dataset(parser)
    parser.add_argument(
        "--backbone",
        default="efficientnet-lite0",
        help="backbone whose embeddings are compared (efficientnet-lite0)",
    )
    parser.add_argument(
        "--limit",
        type=options.positive(int),
        default=50,
        help="maximum number of labels, least credible first (50)",
    )
    parser.add_argument("--json", action="store_true", help="JSON lines")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="write a contact sheet, .png or .html")
    options.add_seed(parser)
    options.add_features(parser)
    ray_option.add_arguments(parser)


def run(arguments: Namespace) -> int:
    """Check all labelled photos, gold ones included, and list the labels that are probably wrong."""
    from cli.progress import Bars, load_tensorflow_aloud  # noqa: PLC0415  # each command loads only what it needs
    from cloud.dataset.store import HAS_IMAGE, Store  # noqa: PLC0415  # as above
    from cloud.dataset.training_set import HAS_LABEL, examples  # noqa: PLC0415  # as above
    from cloud.labeling.contact_sheet import Frame, write_sheet  # noqa: PLC0415  # as above

    store = Store.open(arguments.dataset, create=False)
    photos = [*examples(store), *examples(store, split="gold")]
    load_tensorflow_aloud()
    from cloud.labeling.label_errors import find_label_errors  # noqa: PLC0415  # as above

    with Bars() as bars:
        if arguments.ray:
            from cloud.ray_jobs.task import Work  # noqa: PLC0415  # as above

            work = Work(arguments.dataset, arguments.backbone, mirrored=True, dim=False)
            ray_option.embed_first(arguments, work, f"{HAS_IMAGE} AND {HAS_LABEL}", bars)
        found = find_label_errors(
            photos, arguments.backbone, arguments.cache, seed=arguments.seed, progress=bars
        )
    images, frames = {photo.photo_id: photo.image for photo in photos}, []
    for wrong in found[: arguments.limit]:
        given = f"{wrong.label} by {wrong.source}"
        line = f"{wrong.photo_id}  {wrong.self_confidence:.2f} {given:<20} likely {wrong.suggestion}"
        if arguments.json:
            print_json(wrong)
        else:
            print_line(line)
        caption = (f"{given} {wrong.self_confidence:.2f}", f"likely {wrong.suggestion}")
        frames.append(Frame(images[wrong.photo_id], caption))
    if arguments.sheet is not None and not write_sheet(arguments.sheet, frames):
        print_error(f"{escaped(arguments.sheet)} is not written: there is no photo to show")
    print_error(f"{len(found)} of {len(photos)} labels are probably wrong")
    return 0
