"""The commands of `gleaner cloud`. Each module imports what it needs when it runs, to keep help fast."""

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

COMMANDS: dict[str, tuple[Command, str]] = {
    "import": (import_folder, "import labelled photos into the dataset"),
    "collect": (collect, "store samples and labels from the bus"),
    "teach": (teach, "let a teacher label samples"),
    "train": (train, "train, evaluate and pack the next version"),
    "evaluate": (evaluate, "compare a version with the champion again"),
    "round": (run_round, "teach, train, release and tune once, now"),
    "watch": (watch, "run such a round whenever there is a reason"),
    "release": (release, "release a version to edge nodes"),
    "rollout": (rollout, "roll a version out in stages, and back if it does badly"),
    "policy": (policy, "show, set or tune the harvest policies of edge nodes"),
    "status": (status, "show the fleet, its versions, the rollout and the accuracy by version"),
    "review": (review, "list samples that need a label or were unusable, and label them"),
    "doubts": (doubts, "list labels that are likely wrong"),
}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the commands and their options."""
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=module.__doc__, allow_abbrev=False)
        module.add_arguments(command)


def run(arguments: Namespace) -> int:
    """Run the chosen command."""
    module, _ = COMMANDS[arguments.command]
    return module.run(arguments)
