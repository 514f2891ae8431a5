"""Show the fleet, its versions and trials, the rollout, audited accuracy by version, and people's labels."""

import asyncio
import contextlib
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from bus import log
from bus.mqtt.subscription import Subscription
from cli import connect, options, run_service
from schemas.errors import CodecError, GleanerError
from schemas.messages import NEITHER, CanaryReport, ServedModel, Status
from schemas.topics import HANDLERS, STATUS

if TYPE_CHECKING:
    from cloud.rollout.state_machine import Rollout


_WIDTH = 140
"""Columns where no terminal says how many there are."""


class Node(Struct, frozen=True):
    """A line of the table: an edge node, by one of its handlers."""

    node: str
    name: str
    state: str
    reason: str | None
    model: ServedModel | None
    trial: CanaryReport | None
    samples_waiting: int
    age_s: float


class Accuracy(Struct, frozen=True):
    """A line of the table: a version as people's labels find it.

    Photos that show none of the classes count in `neither` alone: no answer to them could be right. Where
    there are no others, there is no accuracy.
    """

    version: int
    photos: int
    neither: int
    right: int
    accuracy: float | None = None
    low: float | None = None
    high: float | None = None

    def shown(self) -> tuple[str, ...]:
        """Return the cells of its line."""
        known = self.accuracy is not None
        accuracy = f"{self.accuracy:.1%}" if known else ""
        interval = f"{self.low:.1%} to {self.high:.1%}" if known else ""
        share = f"{self.neither} ({self.neither / (self.photos + self.neither):.1%})"
        return str(self.version), str(self.photos), str(self.right), accuracy, interval, share


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument(
        "--wait", metavar="S", type=options.positive(float), default=1.0, help="for the nodes' reports (1)"
    )
    parser.add_argument(
        "--models", type=Path, default=Path("models"), metavar="DIR", help="where rollouts remember (models)"
    )
    options.add_dataset(parser)
    options.add_broker(parser)


def run(arguments: Namespace) -> int:
    """Print what is known."""
    log.configure("error")
    statuses = run_service.run(_statuses(arguments)) or []
    nodes = [_node(status) for status in sorted(statuses, key=lambda status: (status.node, status.name))]
    rollout = _newest_rollout(arguments.models)
    try:
        (accuracies, labels), away = _said_by_people(arguments.dataset), None
    except GleanerError as error:
        accuracies, labels, away = [], {}, str(error)
    if arguments.json:
        whole = {
            "nodes": nodes, "rollout": rollout, "accuracy": accuracies, "labels": labels, "away": away,
        }  # fmt: skip
        print(msgspec.json.encode(whole).decode())
    else:
        _show(nodes, rollout, accuracies, away)
        if away is None:
            print(_labels_said(labels))
    return 0


async def _statuses(arguments: Namespace) -> list[Status]:
    """Return the retained status of each edge handler."""
    bus = connect.bus(arguments, "status")
    subscriptions = [bus.subscribe(STATUS, name=name) for name in HANDLERS]
    found: dict[tuple[str, str], Status] = {}

    async def hear(subscription: Subscription[Status]) -> None:
        async for delivery in subscription:
            delivery.ack()
            with contextlib.suppress(CodecError):
                status = delivery.message()
                found[status.node, status.name] = status

    async with connect.connected(arguments, bus):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(arguments.wait), asyncio.TaskGroup() as tasks:
                for subscription in subscriptions:
                    tasks.create_task(hear(subscription), name="status.hear")
    return list(found.values())


def _node(status: Status) -> Node:
    from bus.mqtt.presence import now_ms  # noqa: PLC0415  # each step loads what it needs, and no more

    counted = status.counters
    came, went = ("sample.kept", "sample.accepted"), ("sample.answered", "sample.dropped_oldest")
    waiting = sum(counted.get(name, 0) for name in came) - sum(counted.get(name, 0) for name in went)
    return Node(
        node=status.node,
        name=status.name,
        state=status.state,
        reason=status.reason,
        model=status.model,
        trial=status.canary,
        samples_waiting=max(waiting, 0),
        age_s=round((now_ms() - status.at_ms) / 1000, 1),
    )


def _newest_rollout(folder: Path) -> "Rollout | None":
    from cloud.rollout import controller  # noqa: PLC0415  # as above

    files = sorted(folder.glob("rollout-*.json"), key=lambda path: path.stat().st_mtime)
    return controller.read(files[-1]) if files else None


def _said_by_people(dataset: str) -> tuple[list[Accuracy], dict[str, int]]:
    """Return what the audits find, and people's labels by what they say.

    Raises:
        PermanentError: There is no dataset.
        TransientError: It cannot be read now.
    """
    from cloud.dataset.store import Store  # noqa: PLC0415  # as above
    from cloud.dataset.training_set import label_counts  # noqa: PLC0415  # as above
    from cloud.evaluation.live_accuracy import audits, of_neither  # noqa: PLC0415  # as above

    store = Store.open(dataset, create=False)
    found, neither = audits(store), of_neither(store)
    accuracies = [
        Accuracy(version, audit.photos, neither.get(version, 0), audit.right, audit.accuracy, *audit.interval)
        for version, audit in found.items()
    ]
    unknown = [Accuracy(version, 0, neither[version], 0) for version in neither.keys() - found.keys()]
    return sorted([*accuracies, *unknown], key=lambda one: one.version), label_counts(store)


def _show(nodes: list[Node], rollout: "Rollout | None", accuracies: list[Accuracy], away: str | None) -> None:
    from rich.console import Console  # noqa: PLC0415  # as above
    from rich.table import Table  # noqa: PLC0415  # as above

    console = Console(width=None if sys.stdout.isatty() else _WIDTH, markup=False, highlight=False)
    fleet = Table("node", "state", "serves", "trial", "compared", "samples waiting", "report", title="Fleet")
    for node in nodes:
        state = f"{node.state}: {node.reason}" if node.reason else node.state
        model, waiting = node.model, str(node.samples_waiting)
        serves = f"{model.name} {model.version or ''} {model.state}" if model else "nothing"
        node_said = node.node if node.name == HANDLERS[0] else f"{node.node} {node.name}"
        fleet.add_row(node_said, state, serves, *_trial_said(node.trial), waiting, f"{node.age_s:.0f} s ago")
    console.print(fleet)
    if rollout is not None:
        versions = f"version {rollout.challenger.version} in place of {rollout.champion.version}"
        console.print(f"Rollout of {versions}: {_rollout_said(rollout)}")
    if away is not None:
        console.print(f"No audits: {away}")
        return
    columns = ("version", "audited photos", "right", "accuracy", "95 % interval", NEITHER)
    audited = Table(*columns, title="Audits")
    for one in accuracies:
        audited.add_row(*one.shown())
    console.print(audited)


def _labels_said(labels: dict[str, int]) -> str:
    classes = ", ".join(f"{count} {label}" for label, count in labels.items() if label != NEITHER)
    return f"Labels by people: {classes or 'none'}; {labels.get(NEITHER, 0)} {NEITHER}"


def _trial_said(trial: CanaryReport | None) -> tuple[str, str]:
    if trial is None:
        return "", ""
    tried = trial.challenger
    counts = f"{tried.version} {trial.stage}, {tried.answered} answered, {tried.failed} failed"
    return counts, f"{trial.disagreed} of {trial.compared} differ"


def _rollout_said(rollout: "Rollout") -> str:
    if rollout.phase != "running":
        return rollout.phase + (f", because {rollout.reason}" if rollout.reason else "")
    place = f"group {rollout.group + 1} of {len(rollout.groups)}, {rollout.present}"
    place += ", watched before it is over" if rollout.is_watched else ""
    return place + (f"; cannot try it: {', '.join(rollout.passed_over)}" if rollout.passed_over else "")
