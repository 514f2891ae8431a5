"""Compare a version with the champion and the best so far, on the gold photos of the dataset as it is now.

It prints the verdict and changes nothing: the card keeps the verdict that the training came to.
"""

import dataclasses
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

import msgspec

from cli import options
from cli.cloud.verdict import show_verdict
from schemas.errors import PermanentError


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    whole = options.positive(int)
    parser.add_argument("version", type=whole, metavar="VERSION", help="the version to judge")
    options.add_dataset(parser)
    parser.add_argument("--dataset-version", type=whole, help="whose photos to judge on (the newest)")
    parser.add_argument(
        "--out",
        type=Path,
        default=options.MODELS,
        metavar="DIR",
        help=f"where versions are ({options.MODELS})",
    )
    parser.add_argument(
        "--champion",
        type=whole,
        metavar="VERSION",
        help="what it would replace (by the older versions' cards)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the intervals (0)")
    parser.add_argument("--json", action="store_true", help="all that was measured, as JSON")


def run(arguments: Namespace) -> int:
    """Print the verdict; 1 if the champion is to stay."""
    from cli.progress import Bars  # noqa: PLC0415  # each step loads what it needs, and no more
    from cloud.card import cards_in  # noqa: PLC0415  # as above
    from cloud.dataset import examples  # noqa: PLC0415  # as above
    from cloud.store import Store  # noqa: PLC0415  # as above

    store = Store.open(arguments.dataset, create=False)
    cards = {card.version: card for card in cards_in(arguments.out)}
    for version in {arguments.version, arguments.champion or arguments.version}:
        if version not in cards:
            raise PermanentError(
                f"version {version}", expected=f"one in {arguments.out}", got=f"only {sorted(cards)}"
            )
    dataset_version = arguments.dataset_version or store.version
    gold = examples(store, version=dataset_version, split="gold")

    print("loading TensorFlow …", file=sys.stderr, flush=True)
    from cloud.trial import hold, lineage  # noqa: PLC0415  # as above

    against = lineage([card for card in cards.values() if card.version < arguments.version])
    if arguments.champion is not None:
        against = dataclasses.replace(against, champion=arguments.champion)
    with Bars() as bars:
        gate = hold(arguments.out, arguments.version, against, gold, seed=arguments.seed, progress=bars)
    if arguments.json:
        print(msgspec.json.encode(gate).decode())
    else:
        show_verdict(arguments.version, gate)
    return 0 if gate.verdict == "promote" else 1
