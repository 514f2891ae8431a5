"""The commands of `gleaner cloud`. Each module imports what it needs when it runs, to keep help fast."""

from argparse import ArgumentParser, Namespace

from cli.cloud import (
    adopt,
    collect,
    compare,
    doubts,
    evaluate,
    policy,
    release,
    retire,
    review,
    rollout,
    run_round,
    status,
    steer,
    teach,
    train,
    watch,
)
from cli.cloud.dataset import (
    export_photos,
    forget,
    import_photos,
    label_photo,
    list_photos,
    merge_class,
    relabel_photo,
    rename_class,
    repair,
    retain,
)
from cli.examples import examples_of
from cli.main import Command

COMMANDS: dict[str, tuple[Command, str]] = {
    "import": (import_photos, "import labelled photos into the dataset"),
    "export": (export_photos, "export labelled photos to another format"),
    "list": (list_photos, "list photos, classes, or manual changes"),
    "label": (label_photo, "label a photo"),
    "relabel": (relabel_photo, "replace the label of a photo"),
    "rename-class": (rename_class, "rename a class"),
    "merge-class": (merge_class, "join a class with another one"),
    "forget": (forget, "take photos out for good"),
    "retain": (retain, "keep the dataset within a size or an age"),
    "repair": (repair, "find damaged data files, and take them out"),
    "collect": (collect, "store samples and labels from the bus"),
    "teach": (teach, "let a teacher label samples"),
    "train": (train, "train, evaluate and pack the next version"),
    "adopt": (adopt, "make a version of a model that was trained elsewhere"),
    "compare": (compare, "compare versions side by side"),
    "evaluate": (evaluate, "compare a version with the champion again"),
    "round": (run_round, "teach, train, release and tune once, now"),
    "watch": (watch, "run such a round whenever there is a reason"),
    "release": (release, "release a version to edge nodes"),
    "rollout": (rollout, "roll a version out in stages, and back if it does badly"),
    "steer": (steer, "pause, resume, roll back or promote the running rollout"),
    "policy": (policy, "show, set or tune the harvest policies of edge nodes"),
    "retire": (retire, "remove a node or component that is gone from the broker"),
    "status": (status, "show the fleet, its versions, the rollout and the accuracy by version"),
    "review": (review, "list samples that need a label or were unusable, and label them"),
    "doubts": (doubts, "list labels that are likely wrong"),
}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the commands and their options."""
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=module.__doc__,
            epilog=examples_of(f"cloud {name}"),
            allow_abbrev=False,
        )
        module.add_arguments(command)


def run(arguments: Namespace) -> int:
    """Run the chosen command."""
    module, _ = COMMANDS[arguments.command]
    return module.run(arguments)
