"""The steps of `gleaner cloud`, each in a module of its own that loads what it needs when it runs."""

from argparse import ArgumentParser, Namespace

from cli.cloud import (
    collect,
    doubts,
    evaluate,
    import_folder,
    policy,
    release,
    review,
    rollout,
    run_round,
    status,
    teach,
    train,
    watch,
)
from cli.main import Command

STEPS: dict[str, tuple[Command, str]] = {
    "import": (import_folder, "bring labelled photos into the dataset"),
    "collect": (collect, "store samples and labels from the bus"),
    "teach": (teach, "let a teacher label the samples that it is sure of"),
    "train": (train, "train, evaluate and pack the next version"),
    "evaluate": (evaluate, "judge a version against the champion again"),
    "round": (run_round, "teach, train and release what the gate lets pass, now"),
    "watch": (watch, "play such a round whenever there is a reason"),
    "release": (release, "tell edge nodes to serve a version"),
    "rollout": (rollout, "bring a version out in stages, and back if it does badly"),
    "policy": (policy, "show, set or tune what edge nodes harvest"),
    "status": (status, "show the fleet, its versions, the rollout and the accuracy by version"),
    "review": (review, "list what waits for a person's label or could not be used, or give a label"),
    "doubts": (doubts, "name the labels that are likely wrong"),
}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the steps and their options."""
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    for name, (module, summary) in STEPS.items():
        step = steps.add_parser(name, help=summary, description=module.__doc__, allow_abbrev=False)
        module.add_arguments(step)


def run(arguments: Namespace) -> int:
    """Do the step that was asked for."""
    module, _ = STEPS[arguments.step]
    return module.run(arguments)
