"""Train, evaluate and pack the next version of the model.

A class of fewer than 3 human labels waits, once two others have as many; --classes names it all the same.
"""

import sys
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from cli import options
from cli.cloud.verdict import show_verdict
from cloud.registry.registry import _next_version
from schemas.errors import PermanentError

if TYPE_CHECKING:
    from cloud.training.train import Trained


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    whole = options.positive(int)
    options.add_dataset(parser)
    parser.add_argument("--dataset-version", type=whole, help="version to train from (the newest)")
    parser.add_argument(
        "--backbone",
        default="efficientnet-lite0",
        help="xception, xception-small or (default) efficientnet-lite0",
    )
    options.add_models(parser)
    parser.add_argument("--version", type=whole, help="number of the new version (the next one)")
    parser.add_argument("--classes", help="comma-separated, in the order of the outputs (all labels, sorted)")
    parser.add_argument(
        "--tflite",
        action="store_true",
        help="write the network for LiteRT too, for `gleaner modelserver --prefer_tflite_model`",
    )
    options.add_seed(parser)
    options.add_features(parser)


def run(arguments: Namespace) -> int:
    """Train, and name the dataset's version after the model's; as one of several workers, help with it."""
    from cli.progress import Bars  # noqa: PLC0415  # each step loads what it needs, and no more
    from cloud.dataset.store import Store  # noqa: PLC0415  # as above
    from cloud.dataset.training_set import examples  # noqa: PLC0415  # as above
    from cloud.evaluation.audit_set import audit_slice, hold_back  # noqa: PLC0415  # as above

    store = Store.open(arguments.dataset, create=False)
    version = _next_version(arguments)

    print("loading TensorFlow …", file=sys.stderr, flush=True)
    from cloud.dataset.example import MIN_CLASS_LABELS, TrainingError, classes_below_minimum  # noqa: PLC0415  # as above
    from cloud.export.saved_model import ExportError  # noqa: PLC0415  # as above
    from cloud.modeling.backbones import BackboneUnavailableError  # noqa: PLC0415  # as above
    from cloud.registry.registry import find_champion  # noqa: PLC0415  # as above
    from cloud.training.distributed import join  # noqa: PLC0415  # as above
    from cloud.training.train import train, try_candidates  # noqa: PLC0415  # as above

    _check_backbone(arguments.backbone)
    try:
        team = join()
        # What may differ from worker to worker is the first one's: the newest version, the folder of models.
        dataset_version = team.agree(arguments.dataset_version or store.version)
        champion = find_champion(arguments.out)
        since_ms = team.agree(0 if champion is None else champion.card.created_at_ms)
        drawn = audit_slice(store, since_ms, version=dataset_version) if since_ms else []
        labelled, audit = hold_back(examples(store, version=dataset_version), drawn)
        gold = examples(store, version=dataset_version, split="gold")
        waiting = {} if arguments.classes else classes_below_minimum(labelled, gold)
        labelled, gold = (
            [photo for photo in photos if photo.label not in waiting] for photos in (labelled, gold)
        )
        with Bars() as bars:
            terms = {
                "backbone": arguments.backbone,
                "classes": arguments.classes.split(",") if arguments.classes else None,
                "seed": arguments.seed,
                "cache_dir": arguments.cache,
                "progress": bars,
                "team": team,
            }
            if not team.chief:
                try_candidates(labelled, gold, **terms)
                return 0
            trained = train(
                labelled,
                gold,
                audit,
                out_dir=arguments.out,
                version=version,
                champion=champion,
                dataset_version=dataset_version,
                tflite=arguments.tflite,
                **terms,
            )
    except (TrainingError, ExportError, BackboneUnavailableError) as error:
        raise PermanentError("training", expected="to be possible", got=error) from None
    store.tag(f"model-{version}", dataset_version)
    for label, count in sorted(waiting.items()):
        print(f"class {label!r} waits for labels: {count} of {MIN_CLASS_LABELS}")
    _show(trained)
    return 0


def _show(trained: "Trained") -> None:
    card = trained.card
    for candidate in card.candidates:
        chosen = "→" if candidate.name == card.chosen else " "
        measured = "" if candidate.gold_accuracy is None else f", {candidate.gold_accuracy:.1%} on gold"
        print(f"{chosen} {candidate.name}: {candidate.photos} photos{measured}")
    show_verdict(card.verdict)
    if not card.auto:
        print("the lane auto did not help twice: it is better switched off")
    print(f"version {card.version}: {trained.bundle_path} ({trained.size_bytes / 1e6:.1f} MB)")


def _check_backbone(name: str) -> None:
    from cloud.modeling.backbones import BACKBONES  # noqa: PLC0415  # as above

    if name not in BACKBONES:
        raise PermanentError("backbone", expected=f"one of {', '.join(BACKBONES)}", got=repr(name))
