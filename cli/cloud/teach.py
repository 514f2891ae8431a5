"""Label samples with a teacher model, where it is confident."""

from argparse import ArgumentParser, Namespace
from math import isfinite

from cli import options
from cli.cloud import ray_option
from cli.output import print_line


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
    ray_option.add_arguments(parser)


def run(arguments: Namespace) -> int:
    """Fit a teacher, label the samples, and print the counts."""
    from cli.progress import Bars, load_tensorflow_aloud  # noqa: PLC0415  # each command loads only what it needs
    from cloud.dataset.store import Store  # noqa: PLC0415  # as above

    # Before TensorFlow, which takes seconds to load: a wrong path fails at once.
    store = Store.open(arguments.dataset, create=False)
    load_tensorflow_aloud()
    from cloud.labeling.auto_label import teach  # noqa: PLC0415  # as above

    backbones = arguments.backbones.split(",")
    with Bars() as bars:
        if arguments.ray:
            from cloud.ray_jobs.ahead import embed_for_teacher  # noqa: PLC0415  # as above

            embed_for_teacher(arguments.dataset, backbones, arguments.ray, arguments.cache, bars)
        result = teach(store, backbones, arguments.cache, seed=arguments.seed, progress=bars)
    if result.thresholds is None:
        print_line("no teacher: too few human labels of samples to measure its precision")
        if result.withdrawn:
            print_line(f"{result.withdrawn} labels of earlier teachers withdrawn")
        return 0
    others, hard = (f"{least:.2f}" if isfinite(least) else "never" for least in result.thresholds)
    print_line(
        f"{result.by}: {result.labelled} of {result.examined} samples labelled;"
        f" confidence from {others}, in lane hard {hard}"
    )
    if result.withdrawn:
        print_line(f"{result.withdrawn} labels of earlier teachers withdrawn: this one abstains there")
    return 0
