"""Evaluate a version against the champion again, on the dataset's current gold and audit photos.

The result is printed only: the model card keeps the verdict of the training.
"""

from argparse import ArgumentParser, Namespace
from dataclasses import replace
from typing import TYPE_CHECKING

from cli import options
from cli.cloud.left_out import show_left_out
from cli.cloud.verdict import show_verdict
from cli.output import print_line

if TYPE_CHECKING:
    from cloud.evaluation.metrics import Metrics
    from cloud.registry.model_card import Calibration


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    whole = options.positive(int)
    parser.add_argument(
        "version", type=whole, nargs="?", metavar="VERSION", help="version to evaluate (the newest)"
    )
    options.add_dataset(parser)
    parser.add_argument("--dataset-version", type=whole, help="of the dataset to evaluate on (the newest)")
    options.add_models(parser)
    options.add_seed(parser, "the intervals")
    options.add_features(parser)


def run(arguments: Namespace) -> int:
    """Print metrics and verdict; return 1 if the gate does not promote the version."""
    from cli.progress import Bars, load_tensorflow_aloud  # noqa: PLC0415  # each step loads what it needs, and no more
    from cloud.dataset.store import Store  # noqa: PLC0415  # as above
    from cloud.dataset.training_set import examples  # noqa: PLC0415  # as above
    from cloud.evaluation.audit_set import audit_slice  # noqa: PLC0415  # as above
    from cloud.evaluation.unseen import unseen_photos  # noqa: PLC0415  # as above
    from cloud.registry.registry import Registry  # noqa: PLC0415  # as above
    from cloud.registry.renamed_classes import with_current_names  # noqa: PLC0415  # as above

    registry = Registry(arguments.out)
    card = registry.card(arguments.version)
    version = card.version
    store = Store.open(arguments.dataset, create=False)
    at = arguments.dataset_version
    gold = examples(store, version=at, split="gold")

    load_tensorflow_aloud()
    from cloud.modeling.backbones import XCEPTION_SMALL  # noqa: PLC0415  # as above
    from cloud.registry.champion import evaluate_challenger, measure_again  # noqa: PLC0415  # as above
    from cloud.training.photo_check import PhotoChecker  # noqa: PLC0415  # as above

    checker = PhotoChecker(XCEPTION_SMALL, arguments.cache)  # any backbone: the decoder is the same
    with Bars() as bars:
        gold, left_out = checker.decodable(gold, bars)
    show_left_out(left_out)
    directory = registry.version_dir(version)
    champion = registry.champion(without=version)
    if at is None:  # an earlier version of the dataset has the names of then
        card = with_current_names(card, store)
        champion = champion and replace(champion, card=with_current_names(champion.card, store))
    print_line(f"version {version}: {card.backbone}, trained from dataset version {card.dataset_version}")
    if gold:
        _show_metrics(*measure_again(directory, card, gold))
    if champion is None:
        print_line("gate: there is no champion to compare with")
        return 0
    by_version, by_champion = (
        unseen_photos(store, one.dataset_version, one.created_at_ms, version=at)
        for one in (card, champion.card)
    )
    with Bars() as bars:
        audit, _ = checker.decodable(audit_slice(store, by_version & by_champion, version=at), bars)
    verdict = evaluate_challenger(
        champion, directory, gold, audit, backbone=card.backbone, classes=card.classes, seed=arguments.seed
    )
    show_verdict(verdict)
    return 0 if verdict.decision == "promote" else 1


def _show_metrics(metrics: "Metrics", calibration: "Calibration") -> None:
    print_line(
        f"accuracy {metrics.accuracy:.1%} ({metrics.accuracy_low:.1%} to {metrics.accuracy_high:.1%})"
        f" on {metrics.photos} gold photos"
    )
    for name, recall in metrics.recall.items():
        print_line(f"recall of {name}: {recall:.1%}")
    for labels, before, after in (
        ("held-out labels", calibration.held_out_before, calibration.held_out_after),
        ("gold", calibration.gold_before, calibration.gold_after),
    ):
        if before is not None and after is not None:
            print_line(f"calibration error on {labels}: {before:.1%}, with the temperature {after:.1%}")
