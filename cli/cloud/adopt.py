"""Make a version of a model that was trained elsewhere: a SavedModel, Keras, LiteRT or ONNX file.

The model takes pixels or encoded photos and gives logits or probabilities. It is calibrated on labelled
photos of the dataset, judged on gold like any version, and can be released and rolled out. What a model must
look like is in docs/model-contract.md.

PREPROCESSING is how the model wants its pixels: raw (0 to 255), unit (0 to 1), signed (-1 to 1), imagenet or
caffe (mean and deviation), then any of ,size=224 ,size=320x240 ,offset=127.5 ,scale=127.5 ,order=bgr
(or rgb, gray).
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from cli import options
from cli.cloud.left_out import show_left_out
from cli.cloud.verdict import show_trained
from cli.output import print_error
from schemas.errors import PermanentError
from schemas.text import escaped


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    whole = options.positive(int)
    parser.add_argument(
        "model", metavar="MODEL", help="folder of a SavedModel, or NAME.keras, .tflite, .onnx"
    )
    parser.add_argument(
        "--classes",
        required=True,
        type=options.class_names,
        help="comma-separated, in the order of the model's scores",
    )
    parser.add_argument(
        "--preprocessing", metavar="PREPROCESSING", help="range, size and order of the pixels, as above"
    )
    parser.add_argument("--output", metavar="NAME", help="output with the scores, if several can have them")
    parser.add_argument(
        "--scores", choices=("logits", "probabilities"), help="what the scores are (default: by their values)"
    )
    options.add_dataset(parser)
    parser.add_argument("--dataset-version", type=whole, help="of the dataset to judge on (the newest)")
    parser.add_argument(
        "--uncalibrated", action="store_true", help="adopt without a dataset: no calibration, no evaluation"
    )
    options.add_models(parser)
    parser.add_argument("--version", type=whole, help="number of the new version (the next one)")
    options.add_tflite(parser, "where the model can be converted")
    options.add_seed(parser)
    options.add_features(parser)


def run(arguments: Namespace) -> int:
    """Adopt the model and print how it was judged."""
    from cli.progress import Bars  # noqa: PLC0415  # each command loads what it needs, and no more
    from cloud.dataset.store import Store  # noqa: PLC0415  # as above
    from cloud.registry.registry import Registry  # noqa: PLC0415  # as above
    from cloud.training.adoption import AdoptionOptions, run_adoption  # noqa: PLC0415  # as above

    chosen = AdoptionOptions(
        model=arguments.model,
        classes=arguments.classes,
        dataset=None if arguments.uncalibrated else arguments.dataset,
        models=str(arguments.out),
        cache=str(arguments.cache),
        preprocessing=arguments.preprocessing,
        output=arguments.output,
        scores=arguments.scores,
        version=arguments.version,
        dataset_version=arguments.dataset_version,
        tflite=arguments.tflite,
        seed=arguments.seed,
    )
    if chosen.dataset is not None:
        try:
            Store.open(chosen.dataset, create=False)  # a wrong path makes no models folder for the lock
        except PermanentError as error:
            if not Path(arguments.model).exists():  # of two mistakes the one that is meant
                raise PermanentError(
                    f"there is no model {escaped(arguments.model)}", hint="check the path"
                ) from None
            raise PermanentError(f"{error}; or adopt the model as it is with --uncalibrated") from None
    with Registry(arguments.out).round_lock(), Bars() as bars:
        outcome = run_adoption(chosen, bars)
    assert outcome.trained is not None, "an adoption has one worker"
    show_left_out(outcome.left_out)
    for warning in outcome.warnings:
        print_error(f"warning: {warning}")
    show_trained(outcome.trained)
    return 0
