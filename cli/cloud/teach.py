"""Let a teacher label the samples that it is sure of."""

import sys
from argparse import ArgumentParser, Namespace
from math import isfinite

from cli import options


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    options.add_dataset(parser)
    parser.add_argument(
        "--backbones",
        default="efficientnet-lite0",
        help="the teacher's networks, comma-separated: efficientnet-lite0, xception (efficientnet-lite0)",
    )
    options.add_seed(parser)
    options.add_features(parser)


def run(arguments: Namespace) -> int:
    """Teach once, and say what came of it."""
    from cli.progress import Bars  # noqa: PLC0415  # each step loads what it needs, and no more
    from cloud.dataset.store import Store  # noqa: PLC0415  # as above

    store = Store.open(arguments.dataset, create=False)
    print("loading TensorFlow …", file=sys.stderr, flush=True)
    from cloud.labeling.auto_label import teach  # noqa: PLC0415  # as above

    with Bars() as bars:
        taught = teach(
            store, arguments.backbones.split(","), arguments.cache, seed=arguments.seed, progress=bars
        )
    if taught.thresholds is None:
        print("no teacher: too few human labels of samples to show that one would be right")
        return 0
    sure, sure_of_hard = (f"{least:.2f}" if isfinite(least) else "never" for least in taught.thresholds)
    print(
        f"{taught.by}: {taught.labelled} of {taught.looked_at} samples labelled;"
        f" sure from {sure}, in lane hard {sure_of_hard}"
    )
    if taught.withdrawn:
        print(f"{taught.withdrawn} labels of earlier teachers taken back: this one is sure of none there")
    return 0
