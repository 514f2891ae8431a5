"""Show edge nodes, versions and canaries, the rollout, audited accuracy by version, and human labels."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct, field

from bus import log
from bus.mqtt.presence import now_ms
from cli import connect, exit_codes, options, run_service
from cli.fleet import Fleet
from cli.output import print_json, print_line
from schemas.class_names import NEITHER
from schemas.errors import GleanerError
from schemas.messages import CanaryReport, ServedModel, Status
from schemas.text import escaped
from schemas.topics import FORGET, HANDLERS

if TYPE_CHECKING:
    from rich.console import Console

    from cloud.registry.rollout_state import Rollout


_STALE_S = 60.0
"""Age in seconds from which a status is stale; a running component publishes one every 15 s."""
_GRAPH = "graph or unknown"
_WIDTH = 140
"""Columns of a table that is not printed on a terminal."""


class Node(Struct, frozen=True):
    """Row of the fleet table: one handler of an edge node."""

    node: str
    name: str
    state: str
    reason: str | None
    model: ServedModel | None
    canary: CanaryReport | None = field(name="trial")
    samples_waiting: int
    age_s: float


class Unforgotten(Struct, frozen=True):
    """A handler that has not carried out the order to forget photos."""

    node: str
    name: str
    ordered_at_ms: int


class Component(Struct, frozen=True):
    """Row of the table of components: a device, or a part of the cloud."""

    node: str
    name: str
    state: str
    reason: str | None
    age_s: float


class Accuracy(Struct, frozen=True):
    """Row of the audit table: a version's accuracy by human labels, None if there are no audited photos.

    Photos that show none of the classes count in `neither` only: no answer to them could be correct.
    """

    version: int
    photos: int
    neither: int
    correct: int = field(name="right")
    accuracy: float | None = None
    low: float | None = None
    high: float | None = None

    def cells(self) -> tuple[str, ...]:
        """Return the cells of the row."""
        known = self.accuracy is not None
        accuracy = f"{self.accuracy:.1%}" if known else ""
        interval = f"{self.low:.1%} to {self.high:.1%}" if known else ""
        share = f"{self.neither} ({self.neither / (self.photos + self.neither):.1%})"
        return str(self.version), str(self.photos), str(self.correct), accuracy, interval, share


class GroupAccuracy(Struct, frozen=True):
    """Row of the table of groups: the accuracy of the newest audited version at a group of devices."""

    version: int
    group: str
    photos: int
    correct: int = field(name="right")
    accuracy: float
    low: float
    high: float

    def cells(self) -> tuple[str, ...]:
        """Return the cells of the row."""
        return _cells_of_part(self.group, self)


class VariantAccuracy(Struct, frozen=True):
    """Row of the table of variants: a version whose edges serve different LiteRT variants.

    `variant` is empty for answers of the graph, or of a model server that does not report it.
    """

    version: int
    variant: str
    photos: int
    correct: int = field(name="right")
    accuracy: float
    low: float
    high: float

    def cells(self) -> tuple[str, ...]:
        """Return the cells of the row."""
        return _cells_of_part(self.variant or _GRAPH, self)


def _cells_of_part(part: str, row: GroupAccuracy | VariantAccuracy) -> tuple[str, ...]:
    """Return the cells of a version's accuracy at a part of its photos."""
    interval = f"{row.low:.1%} to {row.high:.1%}"
    return escaped(part), str(row.version), str(row.photos), str(row.correct), f"{row.accuracy:.1%}", interval


class People(Struct, frozen=True):
    """Accuracy and agreement by people's labels."""

    accuracies: list[Accuracy] = []
    groups: list[GroupAccuracy] = []
    variants: list[VariantAccuracy] = []
    labels: dict[str, int] = {}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument(
        "--wait",
        metavar="S",
        type=options.positive(float),
        default=1.0,
        help="wait for the nodes' reports, in seconds (1)",
    )
    parser.add_argument(
        "--models",
        type=Path,
        default=Path("models"),
        metavar="DIR",
        help="folder of the rollouts' state files (models)",
    )
    options.add_dataset(parser)
    options.add_broker(parser)


def run(arguments: Namespace) -> int:
    """Print tables, or one JSON object; return 1 if a component is not as it should be."""
    log.configure("error")
    statuses, orders = run_service.run(_statuses(arguments))
    nodes = [_node(status) for status in statuses if status.name in HANDLERS]
    others = [_component(status) for status in statuses if status.name not in HANDLERS]
    rollout = _newest_rollout(arguments.models)
    try:
        people, unavailable = _human_labels(arguments.dataset), None
    except GleanerError as error:
        people, unavailable = People(), str(error)
    if arguments.json:
        whole = {
            "nodes": nodes, "components": others, "rollout": rollout,
            "accuracy": people.accuracies, "groups": people.groups,
            "variants": people.variants, "labels": people.labels,
            "away": unavailable, "unforgotten": orders,
        }  # fmt: skip
        print_json(whole)
    else:
        _show(nodes, others, rollout, people, unavailable)
        for order in orders:
            since = _age((now_ms() - order.ordered_at_ms) / 1000)
            print_line(f"{order.node} {order.name} has not forgotten photos yet, as ordered {since}")
        if unavailable is None:
            print_line(_labels_line(people.labels))
    wrong = any(map(_is_wrong, nodes)) or any(map(_is_wrong, others))
    return exit_codes.FAILED if wrong else exit_codes.OK


def _is_wrong(one: "Node | Component") -> bool:
    """Return True for a component that is offline, has not reported recently, or serves no model."""
    if one.state != "online" or one.age_s > _STALE_S:
        return True
    return isinstance(one, Node) and one.model is not None and one.model.state != "available"


async def _statuses(arguments: Namespace) -> tuple[list[Status], list[Unforgotten]]:
    """Return the retained status of every component, and the orders to forget that wait."""
    from cloud.rollout.forget_orders import read_orders, unconfirmed  # noqa: PLC0415  # as below

    bus = connect.bus(arguments, "status")
    fleet, messages = Fleet(bus), bus.subscribe_raw(FORGET.filter)
    async with connect.connected(arguments, bus):
        statuses = await fleet.read(arguments.wait)
    orders = read_orders(messages)
    waiting = [
        Unforgotten(node=one.node, name=one.name, ordered_at_ms=orders[node].at_ms)
        for node in sorted(orders)
        for one in unconfirmed(orders[node], statuses)
    ]
    return statuses, waiting


def _component(status: Status) -> Component:
    return Component(status.node, status.name, status.state, status.reason, _age_s(status))


def _age_s(status: Status) -> float:
    return round((now_ms() - status.at_ms) / 1000, 1)


def _age(seconds: float) -> str:
    """Return an age in words, for example `25 min ago`."""
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} s ago"


def _node(status: Status) -> Node:
    counters = status.counters
    # What earlier runs left in the outbox, and what this run added, less what has been answered or dropped.
    added, removed = (
        ("sample.restored", "sample.accepted"),
        ("sample.answered", "sample.dropped_oldest", "sample.discarded"),
    )
    waiting = sum(counters.get(name, 0) for name in added) - sum(counters.get(name, 0) for name in removed)
    return Node(
        node=status.node,
        name=status.name,
        state=status.state,
        reason=status.reason,
        model=status.model,
        canary=status.canary,
        samples_waiting=max(waiting, 0),
        age_s=_age_s(status),
    )


def _newest_rollout(folder: Path) -> "Rollout | None":
    from cloud.registry.registry import Registry  # noqa: PLC0415  # as above

    return Registry(folder).newest_rollout()


def _human_labels(dataset: str) -> People:
    """Return the audited accuracy of each version and group, and the number of human labels by class.

    Raises:
        PermanentError: There is no dataset.
        TransientError: It cannot be read now.
    """
    from cloud.dataset.store import Store  # noqa: PLC0415  # as above
    from cloud.dataset.training_set import label_counts  # noqa: PLC0415  # as above
    from cloud.evaluation.live_accuracy import (  # noqa: PLC0415  # as above
        audit_stats_by_group,
        audit_stats_by_variant,
        audit_stats_by_version,
        count_neither,
    )

    store = Store.open(dataset, create=False)
    found, neither = audit_stats_by_version(store), count_neither(store)
    accuracies = [
        Accuracy(
            version, audit.photos, neither.get(version, 0), audit.correct, audit.accuracy, *audit.interval
        )
        for version, audit in found.items()
    ]
    unknown = [Accuracy(version, 0, neither[version], 0) for version in neither.keys() - found.keys()]
    version, groups = max(audit_stats_by_group(store).items(), default=(0, {}))
    by_group = [
        GroupAccuracy(version, group, audit.photos, audit.correct, audit.accuracy, *audit.interval)
        for group, audit in groups.items()
    ]
    rows = sorted([*accuracies, *unknown], key=lambda one: one.version)
    by_variant = [
        VariantAccuracy(version, variant, audit.photos, audit.correct, audit.accuracy, *audit.interval)
        for version, variants in audit_stats_by_variant(store).items()
        for variant, audit in variants.items()
    ]
    return People(rows, by_group, by_variant, label_counts(store))


def _show(
    nodes: list[Node],
    others: list[Component],
    rollout: "Rollout | None",
    people: People,
    unavailable: str | None,
) -> None:
    from rich.console import Console  # noqa: PLC0415  # as above
    from rich.table import Table  # noqa: PLC0415  # as above

    console = Console(width=None if sys.stdout.isatty() else _WIDTH, markup=False, highlight=False)
    fleet = Table(
        "node", "state", "serves", "challenger", "compared", "samples waiting", "report", title="Fleet"
    )
    for node in nodes:
        state = f"{node.state}: {node.reason}" if node.reason else node.state
        model, waiting = node.model, str(node.samples_waiting)
        serves = f"{model.name} {model.version or ''} {model.state}" if model else "nothing"
        if node.state == "offline":  # what the retained status says was true before
            serves = f"nothing (last: {serves})"
        name = node.node if node.name == HANDLERS[0] else f"{node.node} {node.name}"
        cells = (name, state, serves, *_canary_cells(node.canary), waiting, _age(node.age_s))
        fleet.add_row(*map(escaped, cells))
    console.print(fleet)
    if others:
        components = Table("node", "component", "state", "report", title="Devices and cloud components")
        for other in others:
            state = f"{other.state}: {other.reason}" if other.reason else other.state
            components.add_row(*map(escaped, (other.node, other.name, state, _age(other.age_s))))
        console.print(components)
    if rollout is not None:
        versions = f"version {rollout.challenger.version} in place of {rollout.champion.version}"
        console.print(escaped(f"Rollout of {versions}: {_rollout_line(rollout)}"))
    if unavailable is not None:
        console.print(escaped(f"No audits: {unavailable}"))
        return
    _show_audits(console, people)


def _show_audits(console: "Console", people: People) -> None:
    from rich.table import Table  # noqa: PLC0415  # as above

    def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        table = Table(*columns, title=title)
        for row in rows:
            table.add_row(*row)
        console.print(table)

    figures = ("version", "audited photos", "right", "accuracy", "95 % interval")
    show("Audits", (*figures, NEITHER), [one.cells() for one in people.accuracies])
    if people.groups:
        show("Audits of groups of devices", ("group", *figures), [one.cells() for one in people.groups])
    if people.variants:
        show("Audits by variant", ("variant", *figures), [one.cells() for one in people.variants])


def _labels_line(labels: dict[str, int]) -> str:
    classes = ", ".join(f"{count} {label}" for label, count in labels.items() if label != NEITHER)
    return f"Labels by people: {classes or 'none'}; {labels.get(NEITHER, 0)} {NEITHER}"


def _canary_cells(report: CanaryReport | None) -> tuple[str, str]:
    if report is None:
        return "", ""
    stats = report.challenger
    counts = f"{stats.version} {report.stage}, {stats.answered} answered, {stats.failed} failed"
    return counts, f"{report.disagreed} of {report.compared} differ"


def _rollout_line(rollout: "Rollout") -> str:
    if rollout.phase != "running":
        return rollout.phase + (f", because {rollout.reason}" if rollout.reason else "")
    place = f"group {rollout.group + 1} of {len(rollout.groups)}, {rollout.current_step}"
    place += ", watched for its bake time" if rollout.is_baking else ""
    return place + (f"; skipped: {', '.join(rollout.skipped)}" if rollout.skipped else "")
